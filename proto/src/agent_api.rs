//! Which agents an API server works with: the contract between them has a number.
//!
//! ```text
//!   agent of              server of number N
//!   N + 1 and more        not used: it may mean something else by what it says
//!   N                     used
//!   N - 1                 used: servers are upgraded before agents
//!   N - 2 and less        not used
//! ```
//!
//! What the numbers are:
//!
//! ```text
//!   0   tells none; does what it is ordered, however late it comes
//!   1   orders of overlays and merges have a place, and one that comes late is refused
//!   2   one without a place is refused, too
//! ```
//!
//! A field or a method that comes anew needs no new number: who does not know a field leaves it out, and
//! a method that is not known is answered UNIMPLEMENTED. A number is new when the meaning of what was
//! there changes, or when servers stop to use what it replaces.

/// What this version's agents speak. Those that tell no number speak 0.
pub const SPOKEN: i32 = 2;

/// Whether this version's servers work with an agent that speaks so.
pub const fn is_understood(number: i32) -> bool {
    number == SPOKEN || number == SPOKEN - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_may_be_one_behind_and_never_ahead() {
        let understood: Vec<i32> = (-3..SPOKEN + 3).filter(|it| is_understood(*it)).collect();
        assert_eq!(understood, [SPOKEN - 1, SPOKEN]);
    }

    /// Its orders would come late unseen.
    #[test]
    fn an_agent_that_tells_no_number_is_not_understood() {
        assert!(!is_understood(0));
    }
}
