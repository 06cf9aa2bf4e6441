//! Which timers fit together: an election must be over before the survivors' leases run out.

use serde::{Deserialize, Serialize};

/// The durations on which the promise and the failover rest, in milliseconds. One set for the whole cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Timers {
    /// `L`: how long a lease lets a replica admit, counted from before its request was sent. Longer rides out longer
    /// elections; a revoke waits up to this long for a replica that does not answer. 500 to 60,000.
    pub lease_ms: u64,
    /// How often a replica renews. At least four tries must fit into a lease.
    pub renew_every_ms: u64,
    /// `m`: added to every wait on somebody else's lease, for what the arithmetic rounds. Too small is dangerous. At least 10.
    pub margin_ms: u64,
    /// `rho`: how far the rates of two machines' unslewed clocks may differ, in parts per million. Too small is dangerous.
    pub rho_ppm: u64,
    /// How often a leader is heard when all is well.
    pub heartbeat_ms: u64,
    /// A replica that has not heard a leader for this long (plus jitter) asks the others whether they have; for this long
    /// after a heartbeat a voter also refuses to vote.
    pub leader_silence_ms: u64,
    /// Upper end of the random part of that wait, drawn anew each time.
    pub jitter_ms: u64,
    /// What one round trip to a quorum is assumed to take, flush to disk included, when the timers are checked.
    pub round_ms: u64,
}

/// How often a replica looks whether it should campaign, ms.
pub const LOOK_MS: u64 = 25;
/// How long a replica that thinks of campaigning waits for the others' answers, ms.
pub const ASK_MS: u64 = 150;

impl Default for Timers {
    fn default() -> Timers {
        Timers {
            lease_ms: 2_000,
            renew_every_ms: 400,
            margin_ms: 100,
            rho_ppm: 1_000,
            heartbeat_ms: 100,
            leader_silence_ms: 300,
            jitter_ms: 150,
            round_ms: 100,
        }
    }
}

/// The timers cannot work together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimersUnfit {
    /// One value is outside the range in which anything works.
    #[error("{name} is {value} ms: it must be between {least} and {most}")]
    Range {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: u64,
        /// Least allowed.
        least: u64,
        /// Most allowed.
        most: u64,
    },
    /// Losing a leader would cost the survivors their leases.
    #[error(
        "a failover takes up to {failover_ms} ms, but a lease has only {slack_ms} ms left between two renewals \
         (lease_ms {lease_ms} - renew_every_ms {renew_every_ms} - round_ms {round_ms}): \
         raise lease_ms or lower leader_silence_ms, jitter_ms or renew_every_ms"
    )]
    FailoverOutlastsLease {
        /// Worst case from a leader's death to the next renewal's answer.
        failover_ms: u64,
        /// What a lease certainly has left when a leader dies.
        slack_ms: u64,
        /// `L`.
        lease_ms: u64,
        /// The renewal interval.
        renew_every_ms: u64,
        /// The assumed round trip.
        round_ms: u64,
    },
}

impl Timers {
    /// That on which a leader's wait for somebody else's lease rests, in words. It must be the same on every node: a leader waits by its own
    /// timers for leases that an earlier leader may have granted.
    pub fn lease_terms(&self) -> String {
        format!(
            "{} ms, margin {} ms, {} ppm",
            self.lease_ms, self.margin_ms, self.rho_ppm
        )
    }

    /// `W = L(1 + 2 rho) + m`, rounded up: after this long nobody can still hold a lease that was asked for before.
    pub const fn wait_ms(&self) -> u64 {
        self.lease_ms + (self.lease_ms * 2 * self.rho_ppm).div_ceil(1_000_000) + self.margin_ms
    }

    /// The longest that the survivors may be without a leader's answer when one leader dies: silence noticed, one lost
    /// vote and the wait after it, the vote that wins, its first entry, one round for a read index.
    pub const fn failover_ms(&self) -> u64 {
        let notice = self.leader_silence_ms + self.jitter_ms + LOOK_MS + ASK_MS;
        let lost_vote = self.jitter_ms + LOOK_MS + ASK_MS + self.round_ms;
        notice + lost_vote + 3 * self.round_ms
    }

    /// Refuses what cannot work, naming the values.
    pub fn check(&self) -> Result<(), TimersUnfit> {
        within("lease_ms", self.lease_ms, 500, 60_000)?;
        within("renew_every_ms", self.renew_every_ms, 20, self.lease_ms / 4)?;
        within("margin_ms", self.margin_ms, 10, self.lease_ms)?;
        within("heartbeat_ms", self.heartbeat_ms, 10, self.leader_silence_ms / 3)?;
        within("jitter_ms", self.jitter_ms, 10, 10_000)?;
        within("round_ms", self.round_ms, 1, 10_000)?;
        // A renewal that was lost with the leader is sent again as soon as another one leads.
        let failover_ms = self.failover_ms() + self.round_ms;
        let slack_ms = self.lease_ms.saturating_sub(self.renew_every_ms + self.round_ms);
        if failover_ms >= slack_ms {
            let Timers {
                lease_ms,
                renew_every_ms,
                round_ms,
                ..
            } = *self;
            return Err(TimersUnfit::FailoverOutlastsLease {
                failover_ms,
                slack_ms,
                lease_ms,
                renew_every_ms,
                round_ms,
            });
        }
        Ok(())
    }
}

fn within(name: &'static str, value: u64, least: u64, most: u64) -> Result<(), TimersUnfit> {
    if value < least || value > most {
        return Err(TimersUnfit::Range {
            name,
            value,
            least,
            most,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_and_a_short_lease_does_not() {
        assert_eq!(Timers::default().check(), Ok(()));
        assert_eq!(Timers::default().wait_ms(), 2_104);
        let short = Timers {
            lease_ms: 1_000,
            renew_every_ms: 250,
            ..Timers::default()
        };
        assert!(matches!(
            short.check(),
            Err(TimersUnfit::FailoverOutlastsLease { slack_ms: 650, .. })
        ));
        let lazy = Timers {
            renew_every_ms: 600,
            ..Timers::default()
        };
        assert!(matches!(
            lazy.check(),
            Err(TimersUnfit::Range {
                name: "renew_every_ms",
                ..
            })
        ));
    }
}
