//! Runs a shell script in a virtual host: `cargo run -p livemerge-vhost --example host -- 'lvm version'`.

#![allow(clippy::print_stdout, reason = "it shows what was said")]

use livemerge_vhost::VirtualHost;

fn main() -> anyhow::Result<()> {
    let script = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "lvm version".to_owned());
    let ended = VirtualHost::default().script(&script)?;
    print!("{}", ended.output);
    std::process::exit(ended.code);
}
