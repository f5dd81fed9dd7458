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
//! A field or a method that comes anew needs no new number: who does not know a field leaves it out, and
//! a method that is not known is answered UNIMPLEMENTED. A number is new when the meaning of what was
//! there changes, or when servers stop to use what it replaces.

/// What this version's agents speak. Those that tell no number speak 0.
pub const SPOKEN: i32 = 1;

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
}
