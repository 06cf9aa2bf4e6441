//! Figures of a process, from `/proc`.

use anyhow::{Context, bail};

/// Clock ticks per second in `/proc/<pid>/stat`: 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: u64 = 100;

/// User and system time that a process has used, in microseconds, in steps of 10 ms.
pub fn cpu_us(pid: u32) -> anyhow::Result<u64> {
    let stat =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    cpu_us_of(&stat).with_context(|| format!("/proc/{pid}/stat cannot be read"))
}

fn cpu_us_of(stat: &str) -> Option<u64> {
    // The second field is the program's name in parentheses and may hold anything; user and system time are the 14th and 15th.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(ticks * 1_000_000 / TICKS_PER_SECOND)
}

/// CPU time that all processes of the machine have used together, in microseconds, in steps of 10 ms.
pub fn all_cpu_us() -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    all_cpu_us_of(&stat).context("/proc/stat cannot be read")
}

fn all_cpu_us_of(stat: &str) -> Option<u64> {
    let fields = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .map(|field| field.parse::<u64>());
    let fields: Vec<u64> = fields.collect::<Result<_, _>>().ok()?;
    // User, nice, system, idle, waiting for the disk, interrupts, soft interrupts; what lies behind is not ours.
    let busy = fields
        .iter()
        .take(7)
        .enumerate()
        .filter(|(n, _)| *n != 3 && *n != 4)
        .map(|(_, ticks)| ticks);
    Some(busy.sum::<u64>() * 1_000_000 / TICKS_PER_SECOND)
}

/// Memory that a process has resident, in KiB.
pub fn resident_kib(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmRSS:")) else {
        bail!("{pid} has no VmRSS")
    };
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_spaces_and_parentheses() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1";
        assert_eq!(cpu_us_of(stat), Some(2_000_000));
    }

    #[test]
    fn idle_time_is_not_used_time() {
        assert_eq!(
            all_cpu_us_of("cpu  10 1 20 4000 500 3 6 99 0 0\ncpu0 1 2"),
            Some(400_000)
        );
        assert!(all_cpu_us().unwrap() > 0);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident_kib(std::process::id()).unwrap() > 100);
    }
}
