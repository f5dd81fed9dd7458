import tests from "../vitest.config";

export default { test: { ...tests.test, include: ["e2e/photo/*.test.ts"] } };
