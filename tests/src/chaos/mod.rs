//! Chaos: real nodes in network namespaces of their own, faults all the time, and an oracle over what clients were told.
//!
//! Clients call a tool through every node all the time, with tokens that live, that were just minted and that were just revoked. Writers
//! mint and revoke through random nodes. Meanwhile nodes are cut off, paused, killed, set to another time, left without room, slowed
//! down, removed and joined anew: a schedule that the seed decides. All of it goes into a history, which [`oracle`] judges; a history that
//! was kept can be judged again.
//!
//! This is started by `tests/chaos/run`, in namespaces that end with it.

mod available;
mod end;
mod faults;
mod field;
mod figures;
mod history;
mod kills;
mod machine;
mod membership;
mod net;
mod options;
mod oracle;
mod probes;
mod run;
mod schedule;
mod spans;
mod stalls;
mod upstream;
mod world;
mod writers;

use std::process::ExitCode;

use history::History;
use options::{Options, What};

/// Reads the command line and does what it says. 0: pass, 1: fail, 2: void, or it could not be run.
pub fn main() -> ExitCode {
    let done = options::read(std::env::args().skip(1)).and_then(|options| carry_out(&options));
    done.unwrap_or_else(|error| {
        eprintln!("chaos: {error:#}");
        ExitCode::from(2)
    })
}

fn carry_out(options: &Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    match &options.what {
        What::Upstream(address) => runtime.block_on(upstream::run(address)).map(|()| ExitCode::SUCCESS),
        What::Judge(file) => judge(&History::read(file)?),
        What::Run => {
            let ran = runtime.block_on(run::run(options));
            // What was written down until then is judged all the same: a violation is one.
            if let Err(error) = &ran {
                println!("chaos: {error:#}");
            }
            judge(&History::read(&options.history)?)
        }
    }
}

fn judge(history: &History) -> anyhow::Result<ExitCode> {
    let judgement = oracle::judge(history);
    match history.run.only_leader_kills {
        true => kills::print(history),
        false => figures::print(history, &judgement),
    }
    figures::verdict(&judgement);
    Ok(match judgement.word() {
        "pass" => ExitCode::SUCCESS,
        "fail" => ExitCode::from(1),
        _ => ExitCode::from(2),
    })
}
