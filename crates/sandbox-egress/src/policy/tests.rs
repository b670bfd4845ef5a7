//! Policies as specified, case by case, and what holds of all of them.

use super::*;
use proptest::prelude::*;

fn rules(default: NetworkAction, rules: impl IntoIterator<Item = NetworkRule>) -> Policy {
    Policy::new(&policy(default, rules)).unwrap()
}

fn policy(default: NetworkAction, rules: impl IntoIterator<Item = NetworkRule>) -> NetworkPolicy {
    NetworkPolicy::Rules {
        rules: rules.into_iter().collect(),
        default,
    }
}

fn domain(action: NetworkAction, name: &str) -> NetworkRule {
    NetworkRule::new(action, Destination::Domain(name.into()))
}

fn cidr(action: NetworkAction, address: &str, prefix: u8) -> NetworkRule {
    let address = address.parse().unwrap();
    NetworkRule::new(action, Destination::Cidr { address, prefix })
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

use NetworkAction::{Allow, Deny};

/// One of the public internet.
const PUBLIC: &str = "93.184.215.14";

#[test]
fn off_denies_all_and_public_allows_all_but_the_floor() {
    let off = Policy::new(&NetworkPolicy::Off).unwrap();
    let public = Policy::new(&NetworkPolicy::Public).unwrap();
    let (floor, target) = (Floor::new(), Target::new(address(PUBLIC), 443));
    assert_eq!(
        off.decide(&floor, &target),
        Verdict::Denied(Reason::Default)
    );
    assert_eq!(
        public.decide(&floor, &target),
        Verdict::Allowed(Reason::Default)
    );
    assert!(!off.may_resolve(&name("example.com")));
    assert!(public.may_resolve(&name("example.com")));
    let inside = Target::new(address("10.0.0.1"), 443);
    assert_eq!(
        public.decide(&floor, &inside),
        Verdict::Denied(Reason::Floor(Class::Private))
    );
    assert!(!public.may_answer(&floor, &name("rebound.example"), address("10.0.0.1")));
}

#[test]
fn the_first_rule_that_fits_decides() {
    let policy = rules(
        Deny,
        [
            cidr(Deny, "93.184.0.0", 16).port(25),
            cidr(Allow, "93.184.215.0", 24),
            cidr(Deny, "93.184.0.0", 16),
            NetworkRule::new(Allow, Destination::Any).port(443),
        ],
    );
    let decide = |text: &str, port| policy.decide(&Floor::new(), &Target::new(address(text), port));
    assert_eq!(decide(PUBLIC, 25), Verdict::Denied(Reason::Rule(0)));
    assert_eq!(decide(PUBLIC, 80), Verdict::Allowed(Reason::Rule(1)));
    assert_eq!(decide("93.184.1.1", 443), Verdict::Denied(Reason::Rule(2)));
    assert_eq!(decide("1.1.1.1", 443), Verdict::Allowed(Reason::Rule(3)));
    assert_eq!(decide("1.1.1.1", 80), Verdict::Denied(Reason::Default));
    // The same host by IPv6.
    assert_eq!(
        decide("::ffff:93.184.1.1", 443),
        Verdict::Denied(Reason::Rule(2))
    );
    assert_eq!(
        decide("64:ff9b::93.184.1.1", 443),
        Verdict::Denied(Reason::Rule(2))
    );
}

#[test]
fn a_name_allows_the_addresses_that_our_resolver_gave_for_it() {
    let policy = rules(Deny, [domain(Allow, "*.example.com")]);
    let (good, bad) = (name("api.example.com"), name("evil.example.net"));
    let other = name("other.example.com");
    let both = [good.clone(), bad.clone()];
    let decide = |resolved: &[Name], said| {
        let target = Target::new(address(PUBLIC), 443)
            .resolved(resolved)
            .said(said);
        policy.decide(&Floor::new(), &target)
    };
    let (allowed, denied) = (
        Verdict::Allowed(Reason::Rule(0)),
        Verdict::Denied(Reason::Default),
    );
    assert_eq!(decide(&both, Said::Unknown), Verdict::NameNeeded);
    assert_eq!(decide(&both, Said::Name(&good)), allowed);
    // On the same address, but another host.
    assert_eq!(decide(&both, Said::Name(&bad)), denied);
    // It says an allowed name to an address that has nothing to do with it.
    assert_eq!(decide(&both[1..], Said::Name(&good)), denied);
    assert_eq!(decide(&[], Said::Name(&good)), denied);
    assert_eq!(decide(&[], Said::Unknown), denied);
    // Another allowed name, which was never resolved to this address.
    assert_eq!(decide(&both, Said::Name(&other)), denied);
    assert_eq!(
        decide(&both, Said::Hidden),
        Verdict::Denied(Reason::HiddenName(0))
    );
    assert_eq!(decide(&both, Said::Nothing), allowed);
    assert_eq!(decide(&both[1..], Said::Nothing), denied);
}

#[test]
fn a_name_that_is_denied_is_denied_also_where_it_hides() {
    let policy = rules(Allow, [domain(Deny, "evil.example")]);
    let (good, evil) = (name("good.example"), name("evil.example"));
    let decide = |resolved: &[Name], said| {
        let target = Target::new(address(PUBLIC), 443)
            .resolved(resolved)
            .said(said);
        policy.decide(&Floor::new(), &target)
    };
    let both = [good.clone(), evil.clone()];
    assert_eq!(decide(&[], Said::Unknown), Verdict::NameNeeded);
    assert!(!decide(&[], Said::Name(&evil)).is_allowed());
    assert!(decide(&both, Said::Name(&good)).is_allowed());
    assert!(!decide(&both, Said::Hidden).is_allowed());
    assert!(!decide(&both, Said::Nothing).is_allowed());
    assert!(decide(&both[..1], Said::Nothing).is_allowed());
    assert!(!policy.may_resolve(&evil));
    assert!(policy.may_resolve(&good));
}

#[test]
fn names_are_resolved_only_if_something_of_them_can_be_reached() {
    let listed = rules(Deny, [domain(Allow, "example.com").port(443)]);
    assert!(listed.may_resolve(&name("example.com")));
    assert!(!listed.may_resolve(&name("www.example.com")));
    let floor = Floor::new();
    assert!(listed.may_answer(&floor, &name("example.com"), address(PUBLIC)));
    assert!(!listed.may_answer(&floor, &name("example.com"), address("169.254.169.254")));

    // To ask for a name is to say it, which a rule for a network does not allow.
    let network = rules(Deny, [cidr(Allow, "93.184.215.0", 24)]);
    assert!(!network.may_resolve(&name("example.com")));
    assert!(network.may_answer(&floor, &name("example.com"), address(PUBLIC)));
    assert!(!network.may_answer(&floor, &name("example.com"), address("1.1.1.1")));

    // Denied for one port only.
    let mail = rules(Allow, [domain(Deny, "example.com").port(25)]);
    assert!(mail.may_resolve(&name("example.com")));
    assert!(mail.may_answer(&floor, &name("example.com"), address(PUBLIC)));

    // Allowed for a port that an earlier rule denies to all, and for another.
    let web = |port| {
        let denied = NetworkRule::new(Deny, Destination::Any).port(443);
        rules(Deny, [denied, domain(Allow, "example.com").port(port)])
    };
    for (port, is_reached) in [(443, false), (80, true)] {
        let web = web(port);
        assert_eq!(web.may_resolve(&name("example.com")), is_reached);
        assert_eq!(
            web.may_answer(&floor, &name("example.com"), address(PUBLIC)),
            is_reached
        );
    }
}

#[test]
fn what_cannot_be_is_refused() {
    for rule in [
        domain(Allow, ""),
        domain(Allow, "*"),
        domain(Allow, "10.0.0.1"),
        cidr(Allow, "1.1.1.1", 33),
        cidr(Allow, "::1", 129),
        cidr(Allow, "1.1.1.1", 32).port(0),
    ] {
        let error = Policy::new(&policy(Deny, [rule.clone()])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{rule:?}");
    }
    let many = std::iter::repeat_n(cidr(Allow, "1.1.1.1", 32), MOST_RULES + 1);
    let error = Policy::new(&policy(Deny, many)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

fn some_address() -> impl Strategy<Value = IpAddr> {
    let v4 = any::<u32>().prop_map(|bits| IpAddr::V4(bits.into()));
    let v6 = any::<u128>().prop_map(|bits| IpAddr::V6(bits.into()));
    let near = (0..18_usize, any::<u8>()).prop_map(|(index, last)| {
        let nets = [
            "10.0.0",
            "127.0.0",
            "169.254.169",
            "192.168.0",
            "100.64.0",
            "93.184.215",
        ];
        address(&format!("{}.{last}", nets[index % nets.len()]))
    });
    prop_oneof![v4, v6, near]
}

fn some_name() -> impl Strategy<Value = Name> {
    prop::sample::select(vec!["a.example", "b.example", "x.a.example", "other.test"]).prop_map(name)
}

fn some_rule() -> impl Strategy<Value = NetworkRule> {
    let action = prop_oneof![Just(Allow), Just(Deny)];
    let patterns = vec!["a.example", "*.example", "*.a.example", "other.test"];
    let pattern = prop::sample::select(patterns).prop_map(str::to_owned);
    let destination = prop_oneof![
        Just(Destination::Any),
        pattern.prop_map(Destination::Domain),
        (some_address(), 0..=32_u8)
            .prop_map(|(address, prefix)| Destination::Cidr { address, prefix }),
    ];
    let port = prop_oneof![Just(None), Just(Some(80)), Just(Some(443))];
    (action, destination, port).prop_map(|(action, destination, port)| {
        let mut rule = NetworkRule::new(action, destination);
        rule.port = port;
        rule
    })
}

fn some_policy() -> impl Strategy<Value = Policy> {
    let default = prop_oneof![Just(Allow), Just(Deny)];
    (default, prop::collection::vec(some_rule(), 0..6))
        .prop_map(|(default, some)| rules(default, some))
}

proptest! {
    #[test]
    fn nothing_of_the_floor_is_ever_reached(policy in some_policy(), to in some_address(), names in prop::collection::vec(some_name(), 0..3)) {
        let floor = Floor::new().host([address(PUBLIC)]);
        let closed = floor.closes(to, 443).is_some();
        let said = names.first().map_or(Said::Nothing, Said::Name);
        let target = Target::new(to, 443).resolved(&names).said(said);
        let verdict = policy.decide(&floor, &target);
        prop_assert!(!(closed && verdict.is_allowed()));
        if closed {
            prop_assert!(names.iter().all(|name| !policy.may_answer(&floor, name, to)));
        }
    }

    /// Who knows what a connection says decides as whoever must ask first, and always decides.
    #[test]
    fn what_is_said_settles_it(policy in some_policy(), to in some_address(), names in prop::collection::vec(some_name(), 0..3), said in some_name()) {
        let floor = Floor::new();
        let target = Target::new(to, 443).resolved(&names);
        let early = policy.decide(&floor, &target);
        for said in [Said::Name(&said), Said::Hidden, Said::Nothing] {
            let late = policy.decide(&floor, &target.said(said));
            prop_assert_ne!(late, Verdict::NameNeeded);
            prop_assert!(early == Verdict::NameNeeded || early == late);
        }
    }

    /// An answer that was handed on is one that can be used, and only that.
    #[test]
    fn answers_are_what_can_be_reached(policy in some_policy(), to in some_address(), by in some_name()) {
        let floor = Floor::new();
        let names = [by.clone()];
        let reached = |port| {
            let target = Target::new(to, port).resolved(&names).said(Said::Name(&by));
            policy.decide(&floor, &target).is_allowed()
        };
        let somewhere = [80, 443, 9999].into_iter().any(reached);
        prop_assert_eq!(policy.may_answer(&floor, &by, to), somewhere);
    }
}
