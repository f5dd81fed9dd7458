//! Tables: with lines and wrapped to the width on a terminal, plain columns elsewhere.

use comfy_table::{ContentArrangement, Table, presets};

/// A list. An empty one has its head only.
pub(super) fn list(
    columns: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
    terminal: bool,
) -> String {
    let mut table = Table::new();
    if terminal {
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.load_style(presets::NOTHING).force_no_tty();
    }
    table.set_header(columns.iter().copied()).add_rows(rows);
    if terminal {
        table.to_string()
    } else {
        plain(&mut table)
    }
}

/// Names and values, one a line.
pub(super) fn details(details: Vec<(&'static str, String)>) -> String {
    columns(
        details
            .into_iter()
            .map(|(name, value)| vec![name.to_owned(), value]),
    )
}

/// Rows in columns, without head or lines.
pub(crate) fn columns(rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).force_no_tty();
    table.add_rows(rows);
    plain(&mut table)
}

/// Two blanks between columns, none at the ends.
fn plain(table: &mut Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_columns_are_aligned_and_trimmed() {
        let rows = [
            vec!["é".to_owned(), "1".to_owned()],
            vec!["long".to_owned(), String::new()],
        ];
        assert_eq!(
            list(&["NAME", "SIZE"], rows, false),
            "NAME  SIZE\né     1\nlong"
        );
    }

    #[test]
    fn a_terminal_gets_lines() {
        let drawn = list(&["NAME"], [vec!["a".to_owned()]], true);
        assert!(drawn.contains('│'), "{drawn}");
    }
}
