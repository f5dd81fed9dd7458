//! What a libvirt error means for the caller.

use virt::error::{Error, ErrorNumber};

use crate::hypervisor::HypervisorError;

/// A command that QEMU itself has answered with an error. libvirt reports it like a broken
/// monitor, as an internal error, and only the text tells them apart.
const QEMU_REFUSED: &str = "unable to execute QEMU command";

/// Of all errors only those count as a refusal that libvirt raises without, or before, doing
/// anything; the rest leaves open what was done. `OperationFailed` does: it is also what a QEMU
/// that dies during a command is reported as.
pub(super) fn meaning(error: &Error) -> HypervisorError {
    use ErrorNumber::{
        AccessDenied, ArgumentUnsupported, BlockCopyActive, ConfigUnsupported, DeviceMissing,
        InternalError, InvalidArg, NoDomain, NoSupport, OperationDenied, OperationInvalid,
        OperationUnsupported, ResourceBusy, XmlDetail, XmlError,
    };
    let text = error.message().to_owned();
    match error.code().known() {
        Some(NoDomain) => HypervisorError::NotFound(text),
        Some(
            AccessDenied | ArgumentUnsupported | BlockCopyActive | ConfigUnsupported
            | DeviceMissing | InvalidArg | NoSupport | OperationDenied | OperationInvalid
            | OperationUnsupported | ResourceBusy | XmlDetail | XmlError,
        ) => HypervisorError::Refused(text),
        Some(InternalError) if text.contains(QEMU_REFUSED) => HypervisorError::Refused(text),
        _ => HypervisorError::Unknown(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virt::connect::Connect;

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
