//! Reads a list page by page.

use crate::failure::{Exit, Failure};

/// Few enough that an answer stays well below the 4 MiB that a message may have.
const PAGE_SIZE: usize = 200;

/// Which page is asked for.
#[derive(Debug)]
pub(crate) struct Page {
    /// At most so many.
    pub(crate) size: i32,
    /// Where it begins; empty for the first.
    pub(crate) token: String,
}

/// All items of a list, or the first `limit`.
///
/// # Errors
/// Those of `ask`, and a server that answers the same page for ever.
pub(crate) async fn read_all<T>(
    limit: Option<usize>,
    mut ask: impl AsyncFnMut(Page) -> Result<(Vec<T>, String), Failure>,
) -> Result<Vec<T>, Failure> {
    let limit = limit.unwrap_or(usize::MAX);
    let mut items = Vec::new();
    let mut token = String::new();
    while items.len() < limit {
        let size = PAGE_SIZE.min(limit - items.len());
        let page = Page {
            size: i32::try_from(size).unwrap_or(i32::MAX),
            token: token.clone(),
        };
        let (found, next) = ask(page).await?;
        items.extend(found);
        if next.is_empty() {
            break;
        }
        if next == token {
            return Err(Failure::new(
                Exit::Internal,
                "the server's pages have no end",
            ));
        }
        token = next;
    }
    items.truncate(limit);
    Ok(items)
}
