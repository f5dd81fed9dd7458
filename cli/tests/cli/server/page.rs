//! A page of what the script lists, and one of it.

use super::PAGE;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use tonic::Status;

/// The page that begins at the token, and the token of the next.
pub(super) fn page<T: Clone>(
    items: &[T],
    fits: impl Fn(&T) -> bool,
    size: i32,
    token: &str,
) -> (Vec<T>, String) {
    let found: Vec<T> = items.iter().filter(|item| fits(item)).cloned().collect();
    let begin = if token.is_empty() {
        0
    } else {
        token.parse().unwrap()
    };
    let end = found
        .len()
        .min(begin + PAGE.min(usize::try_from(size).unwrap()));
    let next = if end < found.len() {
        end.to_string()
    } else {
        String::new()
    };
    (found[begin..end].to_vec(), next)
}

pub(super) fn one<T: Clone>(
    items: &[T],
    fits: impl Fn(&T) -> bool,
    missing: Reason,
) -> Result<T, Status> {
    let found = items.iter().find(|item| fits(item)).cloned();
    found.ok_or_else(|| Problem::new(missing, "there is none").into())
}
