// Taking a snapshot by hand.

import { cli, grpcurl, type Commands } from "./commands";

export type QuiesceWord = "if-possible" | "required" | "never";

export interface CreateQuestion {
  readonly vm: string;
  readonly name: string;
  readonly description: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly deletionProtected: boolean;
  readonly quiesce: QuiesceWord;
  readonly requestId: string;
}

export function createSnapshot(question: CreateQuestion): Commands {
  const { vm, name, description, labels, deletionProtected, quiesce, requestId } = question;
  // What begins with a dash would be taken for a flag, so values stand behind `=`.
  const words = ["snapshot", "create", vm, `--name=${name}`];
  if (description) words.push(`--description=${description}`);
  for (const [key, value] of Object.entries(labels)) words.push(`--label=${key}=${value}`);
  if (deletionProtected) words.push("--protect");
  if (quiesce !== "if-possible") words.push("--quiesce", quiesce);
  words.push("--request-id", requestId);
  const call = grpcurl("SnapshotService/CreateSnapshot", {
    request_id: requestId,
    vm_id: vm,
    name,
    description,
    labels,
    deletion_protected: deletionProtected,
    quiesce: `QUIESCE_${quiesce.toUpperCase().replace("-", "_")}`,
  });
  return { cli: cli(...words), grpcurl: call };
}
