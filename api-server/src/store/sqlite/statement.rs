//! Statements as values. A connection has a thread of its own, and each message to it costs as much as a
//! statement does: several go there in one.

use sqlx::Arguments as _;
use sqlx::error::BoxDynError;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{AssertSqlSafe, Error};

/// One that writes, with a value for each `?` in it.
#[derive(Debug)]
pub(super) struct Statement {
    text: &'static str,
    values: Vec<Value>,
}

#[derive(Debug)]
enum Value {
    Text(Option<String>),
    Integer(i64),
}

impl Statement {
    pub(super) fn new(text: &'static str) -> Self {
        Self {
            text,
            values: Vec::new(),
        }
    }

    pub(super) fn text(mut self, value: impl Into<Option<String>>) -> Self {
        self.values.push(Value::Text(value.into()));
        self
    }

    pub(super) fn integer(mut self, value: i64) -> Self {
        self.values.push(Value::Integer(value));
        self
    }
}

/// Does them one after the other, up to the first that fails. Returns how many rows they have changed.
pub(super) async fn execute(
    connection: &mut SqliteConnection,
    statements: &[Statement],
) -> Result<u64, Error> {
    let texts: Vec<_> = statements.iter().map(|statement| statement.text).collect();
    let mut arguments = SqliteArguments::default();
    for value in statements.iter().flat_map(|statement| &statement.values) {
        add(&mut arguments, value).map_err(Error::Encode)?;
    }
    // Each of them is written down in this program.
    let text = AssertSqlSafe(texts.join(";"));
    let done = sqlx::query_with(text, arguments).execute(connection).await;
    Ok(done?.rows_affected())
}

fn add(arguments: &mut SqliteArguments, value: &Value) -> Result<(), BoxDynError> {
    match value {
        Value::Text(text) => arguments.add(text.clone()),
        Value::Integer(integer) => arguments.add(*integer),
    }
}
