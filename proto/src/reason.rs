//! The closed list of error reasons. `docs/errors.md` is made from it.

use serde::{Deserialize, Serialize};
use tonic::Code;

/// The `domain` of every `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "livemerge";

macro_rules! reasons {
    ($($name:ident = $text:literal, $code:ident, $advice:literal;)*) => {
        /// Why a request or an operation did not succeed. Clients branch on it, not on the text.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(try_from = "String", into = "String")]
        pub enum Reason {
            $(#[doc = $advice] $name,)*
        }

        impl Reason {
            /// Every reason, in the order of `docs/errors.md`.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The text that travels in `ErrorInfo.reason`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The gRPC code that goes with it.
            pub const fn code(self) -> Code {
                match self { $(Self::$name => Code::$code),* }
            }

            /// What it means and what the caller does next, one line for people.
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$name => $advice),* }
            }
        }
    };
}

reasons! {
    FieldInvalid = "FIELD_INVALID", InvalidArgument, "A field is missing or malformed; `BadRequest` names every one. Correct the request.";
    PageTokenInvalid = "PAGE_TOKEN_INVALID", InvalidArgument, "The page token is not one that this question's earlier answer gave. Start from the first page.";
    ResumeTokenInvalid = "RESUME_TOKEN_INVALID", InvalidArgument, "The resume token is not one that this server gives, or was given for another filter. Start from the list, or without a token.";
    RequestIdReused = "REQUEST_ID_REUSED", AlreadyExists, "The request id was used before with another payload. Take a new id.";
    HostNotFound = "HOST_NOT_FOUND", NotFound, "No such host is registered. Check the id.";
    VmNotFound = "VM_NOT_FOUND", NotFound, "No host has reported such a virtual machine. Check the id, and that its host is registered.";
    DiskNotFound = "DISK_NOT_FOUND", NotFound, "The virtual machine has no such disk. Check the target name.";
    SnapshotNotFound = "SNAPSHOT_NOT_FOUND", NotFound, "No such snapshot. It may have been deleted.";
    OperationNotFound = "OPERATION_NOT_FOUND", NotFound, "No such operation. Check the id.";
    MergeNotFound = "MERGE_NOT_FOUND", NotFound, "The host's journal has no such merge. Check the id.";
    VolumeNotFound = "VOLUME_NOT_FOUND", NotFound, "No such volume or storage domain. Check the name.";
    RemovalNotFound = "REMOVAL_NOT_FOUND", NotFound, "No such removal: its volume is gone, or was restored. List the removals.";
    SnapshotAlreadyExists = "SNAPSHOT_ALREADY_EXISTS", AlreadyExists, "The virtual machine has a snapshot of this name. Choose another.";
    MergeIdConflict = "MERGE_ID_CONFLICT", AlreadyExists, "A merge of this id exists with another payload. Take a new id.";
    EtagMismatch = "ETAG_MISMATCH", Aborted, "The snapshot changed since its etag was read. Read it again and decide.";
    WatchConsumerTooSlow = "WATCH_CONSUMER_TOO_SLOW", Aborted, "The client did not take what a stream had sent it for too long, and the stream was given up; so is any answer that is left untaken. Watch again, from the last resume token where there is one, and read faster.";
    ConcurrentChange = "CONCURRENT_CHANGE", Aborted, "Something else works on the same disk. Look again and decide.";
    SnapshotIsActiveLayer = "SNAPSHOT_IS_ACTIVE_LAYER", FailedPrecondition, "The snapshot's volume is the layer that the guest writes; there is nothing above it to merge.";
    SnapshotProtected = "SNAPSHOT_PROTECTED", FailedPrecondition, "The snapshot is protected against deletion. Take the protection off first, if it may go.";
    SnapshotSharedBase = "SNAPSHOT_SHARED_BASE", FailedPrecondition, "Another chain is built on the snapshot's volume, so it is never written or removed. Delete what shares it first.";
    SnapshotNotReady = "SNAPSHOT_NOT_READY", FailedPrecondition, "The snapshot is being taken or deleted. Wait for its operation.";
    VmStateUnknown = "VM_STATE_UNKNOWN", FailedPrecondition, "The virtual machine's host does not answer, so nothing is known of it. Bring the host back.";
    HostInMaintenance = "HOST_IN_MAINTENANCE", FailedPrecondition, "The virtual machine's host is in maintenance, so nothing new is begun there. Ask again once it is over; an operation that was accepted before waits, and goes on by itself.";
    AgentIncompatible = "AGENT_INCOMPATIBLE", FailedPrecondition, "The host's agent is of a version that this server does not work with, or lacks what was asked of it. Upgrade the older of the two: the server before the agents.";
    VmNotRunning = "VM_NOT_RUNNING", FailedPrecondition, "The virtual machine does not run. Start it and try again.";
    GuestAgentUnavailable = "GUEST_AGENT_UNAVAILABLE", FailedPrecondition, "The guest's file systems cannot be frozen: it has no agent that answers in time, or none that can freeze. Nothing was changed. See to the agent in the guest, or take the snapshot without.";
    VmMigrating = "VM_MIGRATING", FailedPrecondition, "The virtual machine is on its way to another host. Nothing was begun; ask again once it is there.";
    ChainDiverged = "CHAIN_DIVERGED", FailedPrecondition, "The disk's chain is not the one that the record or request expects. Look at the chain.";
    ChainLacksData = "CHAIN_LACKS_DATA", FailedPrecondition, "Volumes have left the chain, and nobody has seen that their data were written before QEMU ended. They stay; put them back below the layer above, while the machine is off: the host's message has the command.";
    VolumeInUse = "VOLUME_IN_USE", FailedPrecondition, "Something still needs the volume; the metadata names it. Nothing was removed.";
    RemovalNotKept = "REMOVAL_NOT_KEPT", FailedPrecondition, "The time to bring the volume back is over, or its space is being freed.";
    StrategyUnsupported = "STRATEGY_UNSUPPORTED", FailedPrecondition, "The chain has a layer that cannot be merged, such as one outside the storage domains.";
    NoSafeRepair = "NO_SAFE_REPAIR", FailedPrecondition, "The finding has no repair that is safe to apply; its text says why and what to do instead.";
    PointOfNoReturn = "POINT_OF_NO_RETURN", FailedPrecondition, "The merge has gone too far to be cancelled: the guest is being switched, or was. It goes on to its end.";
    StaleGeneration = "STALE_GENERATION", FailedPrecondition, "A newer server or agent of the same identity has taken over: stop the older one. Or an order has come later than one that was given after it, and is not carried out.";
    InsufficientSpace = "INSUFFICIENT_SPACE", ResourceExhausted, "The storage is full. Free space, then try again.";
    ServerOverloaded = "SERVER_OVERLOADED", ResourceExhausted, "The server has as many calls under way as it takes, or this client as many as its share. Nothing was done. Try again, later each time.";
    WatchLimitReached = "WATCH_LIMIT_REACHED", ResourceExhausted, "The server has as many watches and waits open as it takes, or this client as many as its share. End some, or try again later.";
    HostUnreachable = "HOST_UNREACHABLE", Unavailable, "The host's agent does not answer. Try again; nothing was changed.";
    HypervisorUnreachable = "HYPERVISOR_UNREACHABLE", Unavailable, "libvirt does not answer on the host. Try again.";
    StorageUnreachable = "STORAGE_UNREACHABLE", Unavailable, "The storage does not answer or is busy. Try again.";
    StoreUnavailable = "STORE_UNAVAILABLE", Unavailable, "The server's database or the agent's journal cannot be written. Nothing was done. Try again.";
    PivotPutOff = "PIVOT_PUT_OFF", Unavailable, "A merge has caught up, but the guest would have had to stand still for too long to be switched. It is tried again by itself; raise `merge.pause_limit_ms` if it stays so.";
    VmBusy = "VM_BUSY", Unavailable, "An earlier operation on the same virtual machine goes first. The operation is queued and goes on by itself.";
    MergeLimitReached = "MERGE_LIMIT_REACHED", Unavailable, "As many operations merge on the host or in the storage domain as may at once. The operation is queued and goes on by itself.";
    ServerDraining = "SERVER_DRAINING", Unavailable, "The server is stopping, or the connection is old and is closed. Connect again.";
    ResumeTokenExpired = "RESUME_TOKEN_EXPIRED", OutOfRange, "The resume token belongs to an audit log that is no longer here: the server has another database, or an older copy of it. List again, and watch from there.";
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded, "The call's time was over. What had been accepted goes on; repeat with the same request id.";
    CredentialsMissing = "CREDENTIALS_MISSING", Unauthenticated, "The caller has shown neither a client certificate nor a bearer token. Show one: `--cert-file` and `--key-file`, or `--token-file`.";
    CredentialsInvalid = "CREDENTIALS_INVALID", Unauthenticated, "The bearer token is not known or has expired, or the client certificate is good no more: expired, revoked, or of an authority that was taken out. A stream ends with this when that comes to be while it is open. Get a new one.";
    MethodNotPermitted = "METHOD_NOT_PERMITTED", PermissionDenied, "The caller is known, and has no role that may do this, or is bound to another host; the metadata has its name, and the method or the host. Ask for the role.";
    ChainCorrupt = "CHAIN_CORRUPT", DataLoss, "A volume's header or tables are not what they should be. Nothing was removed; look at the volume, with `qemu-img check`.";
    VmDied = "VM_DIED", FailedPrecondition, "The virtual machine stopped during the merge. The snapshot stays, and so do both volumes; delete it again once the machine runs.";
    MergeIoError = "MERGE_IO_ERROR", Internal, "The block job failed. The chain reads as before for the guest. The message says what libvirt refused; QEMU's log on the host may say more.";
    InternalBug = "INTERNAL_BUG", Internal, "A fault of LiveMerge. The cause is in the server's log under the request's id.";
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Says that a text is no reason of the closed list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no known reason")]
pub struct UnknownReason(pub String);

impl std::str::FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        let found = Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == text);
        found.ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

impl TryFrom<String> for Reason {
    type Error = UnknownReason;

    fn try_from(text: String) -> Result<Self, UnknownReason> {
        text.parse()
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.as_str().to_owned()
    }
}
