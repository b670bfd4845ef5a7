//! All of this again in sandboxes of an ordinary user, who has no root and no cgroup.

use crate::{ordinary, pass::pass_without};

const OTHERS: &str = "there are no other users inside";
const LIMITS: &str = "limits need a cgroup";
const GROUPS: &str = "needs a cgroup";
const HOSTS: &str = "devices are the host's own";

/// What does not apply, by the beginning of its name, and why.
#[rustfmt::skip]
const LACKING: &[(&str, &str)] = &[
    ("accounts::that_are_no_account_files", OTHERS),
    ("accounts::that_give_somebody_another_number", OTHERS),
    ("agent::a_signal_to_the_parent_ends_it_only_without_the_wall", "the control needs a capability"),
    ("agent::its_file_workers_by_the_user", "they are the user's as well, who may end them: see those by root"),
    ("agent::signals", "the user may send them, and PID 1 does not mind"),
    ("bombs::a_fork_bomb", LIMITS),
    ("bombs::a_memory_bomb", LIMITS),
    ("bombs::a_program_that_will_not_end", GROUPS),
    ("bombs::a_sandbox_at_its_limits_is_ended_at_once", LIMITS),
    ("bombs::killing_everybody", OTHERS),
    ("bombs::memory_", LIMITS),
    ("calls::turning_the_machine_off_ends_the_sandbox_at_most", "the control needs a capability"),
    ("devices::spoiled_for_others", HOSTS),
    ("disks::", LIMITS),
    ("forks::links_that_come_and_go", GROUPS),
    ("forks::what_could_gain_rights", OTHERS),
    ("forks::who_was_handed_an_open_file", "nothing outside can open it"),
    ("file_races::hard_links_to_files_of_others", OTHERS),
    ("neighbours::locks_on_common_files", HOSTS),
    ("pauses::a_fork_bomb_rests_whole", GROUPS),
    ("pauses::nobody_inside_wakes_anybody", GROUPS),
    ("pauses::what_sudo_starts_rests_too", GROUPS),
    ("privileges::by_a_capability_that_root_lacks", OTHERS),
    ("privileges::by_a_program_with_capabilities", OTHERS),
    ("privileges::by_a_setuid_program", OTHERS),
    ("sudo::", OTHERS),
    ("terminals::the_terminal_of_root", OTHERS),
    ("way_out::in_the_place_of_who_catches", OTHERS),
];

#[test]
fn everything_that_applies_to_an_ordinary_user() {
    pass_without(&mut ordinary::this_program(None), LACKING, 130);
}
