//! [`label`]: a label of a snapshot.

/// `KEY=VALUE`; the value may be empty, and have more `=`. What a key may be is the server's to say.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(label("team=web"), pair("team", "web"));
        assert_eq!(label("sum=a=b"), pair("sum", "a=b"));
        assert_eq!(label("flag="), pair("flag", ""));
        assert!(label("flag").is_err() && label("=x").is_err());
    }
}
