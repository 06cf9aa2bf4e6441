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

/// What the whole machine has done since it started, in microseconds of one core, in steps of 10 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// CPU time of all processes together.
    pub processes_us: u64,
    /// That, and interrupts: most of what the network stack does on loopback.
    pub busy_us: u64,
}

/// What the whole machine has done.
pub fn machine() -> anyhow::Result<Machine> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    machine_of(&stat).context("/proc/stat cannot be read")
}

fn machine_of(stat: &str) -> Option<Machine> {
    let fields = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .map(|field| field.parse::<u64>());
    let fields: Vec<u64> = fields.collect::<Result<_, _>>().ok()?;
    // User, nice, system, idle, waiting for the disk, interrupts, soft interrupts; what lies behind is not ours.
    let sum = |of: &[u64]| of.iter().sum::<u64>() * 1_000_000 / TICKS_PER_SECOND;
    let (processes_us, interrupts_us) = (sum(fields.get(..3)?), sum(fields.get(5..7)?));
    Some(Machine {
        processes_us,
        busy_us: processes_us + interrupts_us,
    })
}

/// Whether a process runs: one that is dead and not yet buried does not.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
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
        let all = machine_of("cpu  10 1 20 4000 500 3 6 99 0 0\ncpu0 1 2").unwrap();
        assert_eq!((all.processes_us, all.busy_us), (310_000, 400_000));
        assert!(machine().unwrap().busy_us > 0);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(is_alive(std::process::id()) && !is_alive(u32::MAX));
        assert!(resident_kib(std::process::id()).unwrap() > 100);
    }
}
