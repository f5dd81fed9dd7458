//! The console: what a browser is given to call the same services with. It is built in `console/`, and part
//! of this program.

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzEncoder;
use livemerge_runtime::Page;
use rust_embed::Embed;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::LazyLock;

#[derive(Embed)]
#[folder = "../console/dist"]
struct Built;

/// By their names in `dist`.
static FILES: LazyLock<BTreeMap<String, Page>> = LazyLock::new(|| {
    let files = Built::iter().filter_map(|name| {
        let content = match Built::get(&name)?.data {
            Cow::Borrowed(content) => Bytes::from_static(content),
            Cow::Owned(content) => content.into(),
        };
        let page = Page {
            gzipped: gzipped(&content),
            content,
            media_type: media_type(&name),
            named_by_content: name.starts_with("assets/"),
        };
        Some((name.into_owned(), page))
    });
    files.collect()
});

/// Its file under a path of a URL.
pub fn page(path: &str) -> Option<Page> {
    let name = match path.strip_prefix('/')? {
        "" => "index.html",
        name => name,
    };
    FILES.get(name).cloned()
}

fn gzipped(content: &Bytes) -> Option<Bytes> {
    let mut small = Vec::new();
    GzEncoder::new(&**content, Compression::best())
        .read_to_end(&mut small)
        .ok()?;
    (small.len() < content.len()).then(|| small.into())
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("css") => "text/css; charset=utf-8",
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_page_names_is_there_and_browsers_know_what_it_is() {
        let index = page("/").unwrap();
        assert!(!index.named_by_content);
        let html = str::from_utf8(&index.content).unwrap();
        let named: Vec<_> = html
            .split('"')
            .filter(|text| text.contains("/assets/"))
            .collect();
        assert!(named.len() >= 2, "{html}");
        for name in named {
            let file = page(name.trim_start_matches('.')).unwrap();
            assert!(file.named_by_content && !file.content.is_empty(), "{name}");
        }
        for (name, file) in &*FILES {
            assert_ne!(file.media_type, "application/octet-stream", "{name}");
        }
    }

    #[test]
    fn nothing_else_is() {
        for path in [
            "",
            "index.html",
            "//",
            "/../Cargo.toml",
            "/assets",
            "/assets/",
            "/nothing.js",
        ] {
            assert_eq!(page(path), None, "{path}");
        }
    }
}
