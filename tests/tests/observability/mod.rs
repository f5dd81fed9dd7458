//! What can be seen of both services from outside: metrics and their documents, traces.

mod documents;
mod scrape;
mod traces;
