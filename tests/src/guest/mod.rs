//! A real guest that writes all the time and says what is safe, and the judge of its disks.
//!
//! ```text
//!  image     kernel + initramfs          domain   GuestSpec -> libvirt XML
//!     \________ QEMU (TCG or KVM) _________/
//!                 |  writes record i at block i mod N, flushes (see record)
//!                 |  "ACK vda i" on the serial console
//!  serial file ---+--> acks     when each acknowledgement reached the host
//!  disk images ---+--> oracle   is every acknowledged record still there?
//!                 +--> files    was the file system frozen?
//!                 +--> pairs    were two disks frozen at once?
//! ```
//! To end a guest cleanly press its power button (`virsh shutdown`): the writers stop between two
//! records. To destroy it is as good for the oracle: what was acknowledged must be there anyway.

pub mod acks;
mod console;
pub mod domain;
pub mod files;
pub mod image;
pub mod oracle;
pub mod pairs;
pub mod record;
