//! Page tokens: the last key of the page before, and the question that it answers.
//!
//! A token is no secret; what it must not do is to continue another question silently.

use crate::store::Page;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use sha2::{Digest as _, Sha256};
use std::str::FromStr;

/// A list request's question, and where it goes on.
pub(super) struct Pager {
    question: String,
    size: usize,
}

impl Pager {
    /// `question` says what is listed and with which filter.
    pub(super) fn new(question: impl std::fmt::Debug, size: usize) -> Self {
        let question = digest(&format!("{question:?}"));
        Self { question, size }
    }

    /// Where to begin. One more than the page is asked for, to see whether another follows.
    pub(super) fn page<K: FromStr>(&self, token: &str) -> Result<Page<K>, Problem> {
        let after = if token.is_empty() {
            None
        } else {
            Some(self.parse(token)?)
        };
        Ok(Page {
            after,
            limit: self.size + 1,
        })
    }

    fn parse<K: FromStr>(&self, token: &str) -> Result<K, Problem> {
        let key = token
            .split_once('.')
            .filter(|(question, _)| *question == self.question);
        key.and_then(|(_, key)| key.parse().ok()).ok_or_else(|| {
            let text = "the page token is not one that this question's earlier answer gave";
            Problem::new(Reason::PageTokenInvalid, text)
        })
    }

    /// Cuts what was found to the page, and gives the next one's token; empty on the last.
    pub(super) fn cut<T, K: ToString>(&self, found: &mut Vec<T>, key: impl Fn(&T) -> K) -> String {
        if found.len() <= self.size {
            return String::new();
        }
        found.truncate(self.size);
        found
            .last()
            .map(|last| format!("{}.{}", self.question, key(last).to_string()))
            .unwrap_or_default()
    }
}

/// Tells questions apart.
pub(super) fn digest(question: &str) -> String {
    let digest = Sha256::digest(question);
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_continues_its_own_question_only() {
        let pager = Pager::new(("events", 1), 2);
        let mut found = vec![1_u64, 2, 3];
        let token = pager.cut(&mut found, |n| *n);
        assert_eq!(found, [1, 2]);
        assert_eq!(pager.page::<u64>(&token).unwrap().after, Some(2));
        let other = Pager::new(("events", 2), 2);
        assert_eq!(
            other.page::<u64>(&token).unwrap_err().reason,
            Reason::PageTokenInvalid
        );
        assert!(pager.page::<u64>("x").is_err());
        assert_eq!(pager.cut(&mut found, |n| *n), "");
    }
}
