//! `make bench`: the time of a delete beside its peers, as ratios.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    livemerge_tests::bench::run().await
}
