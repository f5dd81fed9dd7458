//! What a libvirt error means for the caller.

use virt::error::{Error, ErrorNumber};

use crate::hypervisor::HypervisorError;

/// A command that QEMU itself has answered with an error. libvirt reports it like a broken
/// monitor, as an internal error, and only the text tells them apart.
const QEMU_REFUSED: &str = "unable to execute QEMU command";
/// What such an answer ends with when a request to an image failed: `EIO`, in words.
const INPUT_OUTPUT: &str = "Input/output error";

/// What libvirt says when it has waited for the end of another job on the machine, and what it calls
/// those that migrate it, on either side: `remoteDispatchDomainMigratePerform3Params`, for example.
/// Nothing was done then.
const HELD: &str = "cannot acquire state change lock";
const BY_MIGRATION: &str = "Migrate";

/// Of all errors only those count as a refusal that libvirt raises without, or before, doing
/// anything; the rest leaves open what was done. `OperationFailed` does: it is also what a QEMU
/// that dies during a command is reported as.
pub(super) fn meaning(error: &Error) -> HypervisorError {
    of(error.code().known(), error.message().to_owned())
}

fn of(number: Option<ErrorNumber>, text: String) -> HypervisorError {
    use ErrorNumber::{
        AccessDenied, ArgumentUnsupported, BlockCopyActive, ConfigUnsupported, DeviceMissing,
        InternalError, InvalidArg, NoDomain, NoSupport, OperationDenied, OperationInvalid,
        OperationTimeout, OperationUnsupported, ResourceBusy, XmlDetail, XmlError,
    };
    match number {
        Some(NoDomain) => HypervisorError::NotFound(text),
        Some(
            AccessDenied | ArgumentUnsupported | BlockCopyActive | ConfigUnsupported
            | DeviceMissing | InvalidArg | NoSupport | OperationDenied | OperationInvalid
            | OperationUnsupported | ResourceBusy | XmlDetail | XmlError,
        ) => HypervisorError::Refused(text),
        Some(OperationTimeout) if text.contains(HELD) && text.contains(BY_MIGRATION) => {
            HypervisorError::Migrating(text)
        }
        Some(InternalError) if text.contains(QEMU_REFUSED) => {
            if text.ends_with(INPUT_OUTPUT) {
                HypervisorError::Storage(text)
            } else {
                HypervisorError::Refused(text)
            }
        }
        _ => HypervisorError::Unknown(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virt::connect::Connect;

    /// What libvirt says after it has waited in vain for its lock of the machine.
    #[test]
    fn a_lock_that_a_migration_holds_is_a_refusal_and_any_other_is_unknown() {
        let held_by = |who: &str| {
            let text = format!("Timed out during operation: {HELD} (held by monitor={who})");
            of(Some(ErrorNumber::OperationTimeout), text)
        };
        for who in [
            "remoteDispatchDomainMigratePerform3Params",
            "remoteDispatchDomainMigratePrepare3Params",
        ] {
            let migrating = held_by(who);
            assert!(
                matches!(migrating, HypervisorError::Migrating(_)),
                "{migrating}"
            );
        }
        let other = held_by("remoteDispatchDomainBackupBegin");
        assert!(matches!(other, HypervisorError::Unknown(_)), "{other}");
        let silent = of(Some(ErrorNumber::OperationTimeout), "Migrate".to_owned());
        assert!(matches!(silent, HypervisorError::Unknown(_)), "{silent}");
    }

    /// QEMU flushes an image before it commits into it, for example.
    #[test]
    fn a_command_that_failed_at_its_storage_is_told_apart() {
        let answer = |why: &str| {
            let text = format!("internal error: {QEMU_REFUSED} 'block-commit': {why}");
            of(Some(ErrorNumber::InternalError), text)
        };
        let away = answer("Failed to flush the L2 table cache: Input/output error");
        assert!(matches!(away, HypervisorError::Storage(_)), "{away}");
        let busy = answer("Node '#block132' is busy: node is used as backing hd of '#block074'");
        assert!(matches!(busy, HypervisorError::Refused(_)), "{busy}");
    }

    #[test]
    fn only_a_missing_machine_is_not_found() {
        let connect = Connect::open(Some("test:///default")).unwrap();
        let missing = connect
            .lookup_domain_by_uuid(uuid::Uuid::from_u128(7))
            .unwrap_err();
        assert!(matches!(meaning(&missing), HypervisorError::NotFound(_)));
        let domain = connect.lookup_domain_by_name("test").unwrap();
        domain.destroy().unwrap();
        let refused = domain.destroy().unwrap_err();
        assert!(
            matches!(meaning(&refused), HypervisorError::Refused(_)),
            "{refused}"
        );
        let nowhere = Connect::open(Some("qemu+unix:///system?socket=/nonexistent")).unwrap_err();
        assert!(
            matches!(meaning(&nowhere), HypervisorError::Unknown(_)),
            "{nowhere}"
        );
    }
}
