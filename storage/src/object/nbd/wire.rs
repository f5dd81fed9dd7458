//! The bytes of the protocol. Everything is big-endian.

/// `NBDMAGIC`.
pub(in crate::object) const GREETING: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`.
pub(in crate::object) const OPTION: u64 = 0x4948_4156_454f_5054;
pub(in crate::object) const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
pub(in crate::object) const REPLY: u32 = 0x6744_6698;

pub(in crate::object) const FIXED_NEWSTYLE: u16 = 1;
pub(in crate::object) const NO_ZEROES: u16 = 1 << 1;

/// What an export can do: flags, flush, FUA, trim, write zeroes.
pub(in crate::object) const EXPORT_FLAGS: u16 = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6;
pub(in crate::object) const READ_ONLY: u16 = 1 << 1;

/// The most bytes of one request. Clients take no more unless they are told.
pub(in crate::object) const MOST_BYTES: u32 = 32 << 20;
/// An option's data: a name has at most 4096 bytes.
pub(in crate::object) const MOST_OPTION: u32 = 8 << 10;

pub(in crate::object) const REQUEST_BYTES: usize = 28;

/// What a client asks for before it has an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::object) enum Asked {
    /// An export at once, without an answer when there is none.
    ExportName(String),
    Abort,
    List,
    /// What an export is like.
    Info(String),
    /// The same, and to use it.
    Go(String),
    /// Something that is not known here.
    Unknown,
    /// Something whose data make no sense.
    Invalid,
}

impl Asked {
    /// An option by its number and data.
    pub(in crate::object) fn parse(option: u32, data: &[u8]) -> Self {
        let named = |make: fn(String) -> Self| info(data).map_or(Self::Invalid, make);
        match option {
            1 => String::from_utf8(data.to_vec()).map_or(Self::Invalid, Self::ExportName),
            2 => Self::Abort,
            3 if data.is_empty() => Self::List,
            3 => Self::Invalid,
            6 => named(Self::Info),
            7 => named(Self::Go),
            _ => Self::Unknown,
        }
    }
}

/// The name in the data of INFO and GO. Behind it stands which information is wished: all is told.
fn info(data: &[u8]) -> Option<String> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (name, rest) = rest.split_at_checked(length)?;
    let (wishes, rest) = rest.split_first_chunk::<2>()?;
    let complete = rest.len() == usize::from(u16::from_be_bytes(*wishes)) * 2;
    let name = std::str::from_utf8(name).ok()?;
    complete.then(|| name.to_owned())
}

/// The kind of an answer to an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::object) enum Answer {
    Ack = 1,
    Server = 2,
    Info = 3,
    Unsupported = 0x8000_0001,
    Policy = 0x8000_0002,
    Invalid = 0x8000_0003,
    UnknownExport = 0x8000_0006,
    Shutdown = 0x8000_0007,
}

/// An answer to an option.
pub(in crate::object) fn answer(option: u32, kind: Answer, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("an answer is short");
    let mut bytes = OPTION_REPLY.to_be_bytes().to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend((kind as u32).to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend(data);
    bytes
}

/// The data of an answer that says what an export is like.
pub(in crate::object) fn export_info(bytes: u64, flags: u16) -> Vec<u8> {
    let mut data = vec![0, 0];
    data.extend(bytes.to_be_bytes());
    data.extend(flags.to_be_bytes());
    data
}

/// The data of an answer that says what sizes requests may have.
pub(in crate::object) fn block_info() -> Vec<u8> {
    let mut data = vec![0, 3];
    for bytes in [1, 4096, MOST_BYTES] {
        data.extend(bytes.to_be_bytes());
    }
    data
}

/// The data of an answer that names an export.
pub(in crate::object) fn server_info(name: &str) -> Vec<u8> {
    let length = u32::try_from(name.len()).expect("a name is short");
    let mut data = length.to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data
}

/// What a client wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::object) enum Command {
    Read,
    Write,
    Disconnect,
    Flush,
    Trim,
    WriteZeroes,
    Unknown(u16),
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::object) struct Request {
    pub(in crate::object) command: Command,
    /// Whether it is durable when it is answered.
    pub(in crate::object) fua: bool,
    /// Comes back in the reply.
    pub(in crate::object) cookie: u64,
    pub(in crate::object) at: u64,
    pub(in crate::object) bytes: u32,
}

impl Request {
    /// `None` for what is no request: nothing behind it can be understood.
    pub(in crate::object) fn parse(header: &[u8; REQUEST_BYTES]) -> Option<Self> {
        let (magic, rest) = header.split_first_chunk::<4>()?;
        let (flags, rest) = rest.split_first_chunk::<2>()?;
        let (command, rest) = rest.split_first_chunk::<2>()?;
        let (cookie, rest) = rest.split_first_chunk::<8>()?;
        let (at, rest) = rest.split_first_chunk::<8>()?;
        let bytes = rest.first_chunk::<4>()?;
        if u32::from_be_bytes(*magic) != REQUEST {
            return None;
        }
        let command = match u16::from_be_bytes(*command) {
            0 => Command::Read,
            1 => Command::Write,
            2 => Command::Disconnect,
            3 => Command::Flush,
            4 => Command::Trim,
            6 => Command::WriteZeroes,
            other => Command::Unknown(other),
        };
        Some(Self {
            command,
            fua: u16::from_be_bytes(*flags) & 1 != 0,
            cookie: u64::from_be_bytes(*cookie),
            at: u64::from_be_bytes(*at),
            bytes: u32::from_be_bytes(*bytes),
        })
    }

    /// The same as bytes.
    pub(in crate::object) fn header(&self) -> [u8; REQUEST_BYTES] {
        let command = match self.command {
            Command::Read => 0,
            Command::Write => 1,
            Command::Disconnect => 2,
            Command::Flush => 3,
            Command::Trim => 4,
            Command::WriteZeroes => 6,
            Command::Unknown(other) => other,
        };
        let mut bytes = [0; REQUEST_BYTES];
        bytes[..4].copy_from_slice(&REQUEST.to_be_bytes());
        bytes[4..6].copy_from_slice(&u16::from(self.fua).to_be_bytes());
        bytes[6..8].copy_from_slice(&command.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.at.to_be_bytes());
        bytes[24..].copy_from_slice(&self.bytes.to_be_bytes());
        bytes
    }

    /// Whether all of it lies within an export.
    pub(in crate::object) fn is_within(&self, bytes: u64) -> bool {
        let end = self.at.checked_add(self.bytes.into());
        end.is_some_and(|end| end <= bytes)
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::object) enum Ended {
    Well = 0,
    NotPermitted = 1,
    Failed = 5,
    Invalid = 22,
    NoSpace = 28,
}

/// The head of a reply; the data of a read follow.
pub(in crate::object) fn reply(cookie: u64, ended: Ended) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&REPLY.to_be_bytes());
    bytes[4..8].copy_from_slice(&(ended as u32).to_be_bytes());
    bytes[8..].copy_from_slice(&cookie.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(name: &[u8], wishes: &[u16]) -> Vec<u8> {
        let mut data = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
        data.extend(name);
        data.extend(u16::try_from(wishes.len()).unwrap().to_be_bytes());
        data.extend(wishes.iter().flat_map(|wish| wish.to_be_bytes()));
        data
    }

    #[test]
    fn options_are_told_apart() {
        let a = || "a".to_owned();
        for (option, data, expected) in [
            (1, b"a".to_vec(), Asked::ExportName(a())),
            (2, vec![], Asked::Abort),
            (3, vec![], Asked::List),
            (3, vec![0], Asked::Invalid),
            (6, named(b"a", &[]), Asked::Info(a())),
            (7, named(b"a", &[3, 9]), Asked::Go(a())),
            (7, named(b"\xff", &[]), Asked::Invalid),
            (7, vec![255; 4], Asked::Invalid),
            (8, vec![], Asked::Unknown),
        ] {
            assert_eq!(Asked::parse(option, &data), expected, "{option} {data:?}");
        }
    }

    fn requests() -> impl Strategy<Value = Request> {
        let command = prop_oneof![
            Just(Command::Read),
            Just(Command::Write),
            Just(Command::Disconnect),
            Just(Command::Flush),
            Just(Command::Trim),
            Just(Command::WriteZeroes),
            (7..u16::MAX).prop_map(Command::Unknown),
        ];
        let fields = (
            command,
            any::<bool>(),
            any::<u64>(),
            any::<u64>(),
            any::<u32>(),
        );
        fields.prop_map(|(command, fua, cookie, at, bytes)| Request {
            command,
            fua,
            cookie,
            at,
            bytes,
        })
    }

    proptest! {
        #[test]
        fn no_option_makes_it_panic(option in 0..12_u32, data in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Asked::parse(option, &data);
        }

        #[test]
        fn a_name_is_read_whole_or_not_at_all(name in "\\PC{0,20}", cut in 0..10_usize) {
            let data = named(name.as_bytes(), &[0, 3]);
            prop_assert_eq!(Asked::parse(7, &data), Asked::Go(name));
            if cut > 0 {
                prop_assert_eq!(Asked::parse(7, &data[..data.len().saturating_sub(cut)]), Asked::Invalid);
            }
        }

        #[test]
        fn a_request_reads_back(request in requests()) {
            prop_assert_eq!(Request::parse(&request.header()), Some(request));
        }

        #[test]
        fn no_header_makes_it_panic(header in proptest::array::uniform28(any::<u8>()), size in any::<u64>()) {
            if let Some(request) = Request::parse(&header) {
                let within = request.is_within(size);
                prop_assert_eq!(within, u128::from(request.at) + u128::from(request.bytes) <= u128::from(size));
            }
        }
    }
}
