//! Pages of a list that is whole in memory: the token is the last key of the page before.

use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use std::str::FromStr;

/// One page and the token of the next; empty on the last.
pub(super) fn page<K: FromStr + Ord + ToString, T>(
    items: impl IntoIterator<Item = T>,
    key: impl Fn(&T) -> K,
    size: usize,
    token: &str,
) -> Result<(Vec<T>, String), Problem> {
    let after = if token.is_empty() {
        None
    } else {
        Some(parse(token)?)
    };
    let mut rest = items
        .into_iter()
        .filter(|item| after.as_ref().is_none_or(|after| key(item) > *after));
    let page: Vec<T> = rest.by_ref().take(size).collect();
    let more = rest.next().is_some();
    let next = page
        .last()
        .filter(|_| more)
        .map(|last| key(last).to_string());
    Ok((page, next.unwrap_or_default()))
}

fn parse<K: FromStr>(token: &str) -> Result<K, Problem> {
    token.parse().map_err(|_| {
        Problem::new(
            Reason::PageTokenInvalid,
            "the page token is not one of this list's",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_complete_and_end() {
        let items = [1, 2, 3, 4, 5];
        for size in 1..=6 {
            let (mut all, mut token) = (Vec::new(), String::new());
            loop {
                let (page, next) = page::<u32, _>(items, |item| *item, size, &token).unwrap();
                all.extend(page);
                token = next;
                if token.is_empty() {
                    break;
                }
            }
            assert_eq!(all, items, "page size {size}");
        }
        assert!(page::<u32, _>(items, |item| *item, 1, "x").is_err());
    }
}
