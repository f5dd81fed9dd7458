//! A fixed number of power cuts. Many more: `cargo run --bin livemerge-sweep -- --only-power`.

use anyhow::Result;
use livemerge_tests::power;
use tokio_util::sync::CancellationToken;

const CUTS: usize = 12;
const SEED: u64 = 7;

#[tokio::test(flavor = "multi_thread")]
async fn the_host_s_power_is_cut_at_many_moments_and_all_that_was_promised_is_there() -> Result<()>
{
    let cuts = power::run(CUTS, SEED, &CancellationToken::new()).await?;
    let said: Vec<_> = cuts
        .failed
        .iter()
        .map(|error| format!("{error:#}"))
        .collect();
    assert_eq!(said, [""; 0]);
    assert_eq!((cuts.done, cuts.outstanding), (CUTS, 0));
    // Each is in another part of the run, as far as there are so many.
    assert!(cuts.parts.len() > CUTS / 3, "{:?}", cuts.parts);
    assert!(cuts.looked_for > 64 * CUTS as u64, "{}", cuts.looked_for);
    Ok(())
}
