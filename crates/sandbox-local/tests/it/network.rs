//! Sandboxes that can reach something.

use crate::support::State;
use sandbox_local::Verdict;

#[test]
fn the_doctor_says_whether_they_can_be_made_by_making_one() {
    let state = State::new();
    let checks = state.provider().doctor().checks;
    let check = checks.iter().find(|check| check.name == "a network");
    assert_eq!(check.unwrap().verdict, Verdict::Ok, "{checks:?}");
}
