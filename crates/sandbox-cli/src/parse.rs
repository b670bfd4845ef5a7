//! Reads the values of options: times, sizes, variables. Pure functions, except that `NAME` alone looks at
//! the environment.

use crate::language;
use clap::builder::{PossibleValue, PossibleValuesParser};
use sandbox::{Destination, NetworkAction, NetworkPolicy, NetworkRule, local::VolumeMount};
use std::{
    fs::File,
    io::Read,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Longest time that any option takes: a hundred years, far from any overflow of clocks.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A time: seconds, or numbers with units as in `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const HELP: &str = "write seconds, or numbers with units as in 90s, 2m, 1h30m";
    let text = text.trim();
    let time = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| HELP)?,
        Err(_) => humantime::parse_duration(text).map_err(|error| format!("{error}; {HELP}"))?,
    };
    if time < Duration::from_millis(1) {
        return Err("it must be at least a millisecond".into());
    }
    if time > LONGEST {
        return Err("it must be less than a hundred years".into());
    }
    Ok(time)
}

/// A size in bytes: `512M`, `2G`, `1.5GiB`. Units are powers of 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    const HELP: &str = "write a number and K, M, G or T, as in 512M or 1.5G";
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(HELP.into()),
    };
    let number: f64 = number.parse().map_err(|_| HELP)?;
    let bytes = number * (1_u64 << shift) as f64;
    // Beyond 2^53 a float no longer holds every integer, and no machine has that much.
    if !(1.0..=(1_u64 << 53) as f64).contains(&bytes) {
        return Err("it must be at least one byte and at most 8192T".into());
    }
    Ok(bytes as u64)
}

/// A number of processors, fractions too.
pub(crate) fn cpus(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(cpus) if (0.01..=4096.0).contains(&cpus) => Ok(cpus),
        _ => Err("write a number from 0.01 to 4096, as in 0.5 or 2".into()),
    }
}

/// `NAME=VALUE`, or `NAME` for the value it has here.
pub(crate) fn variable(text: &str) -> Result<(String, String), String> {
    variable_of(text, |name| std::env::var_os(name))
}

fn variable_of(
    text: &str,
    here: impl Fn(&str) -> Option<std::ffi::OsString>,
) -> Result<(String, String), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() || text.contains('\0') {
        return Err("write NAME=VALUE, or NAME to pass on its value here".into());
    }
    let value = match value {
        Some(value) => value,
        None => here(name)
            .ok_or_else(|| format!("{name} has no value here, write {name}=VALUE"))?
            .into_string()
            .map_err(|_| format!("the value of {name} here is not UTF-8"))?,
    };
    Ok((name.to_owned(), value))
}

/// `SOURCE:DEST[:ro]`; a source with a slash is a folder of this machine, else a named volume.
pub(crate) fn volume(text: &str) -> Result<VolumeMount, String> {
    let mut parts = text.split(':');
    let (Some(source), Some(target), mode, None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("write SOURCE:DEST or SOURCE:DEST:ro".into());
    };
    let source = if source.contains('/') || matches!(source, "." | "..") {
        let path = std::path::absolute(source).map_err(|error| error.to_string())?;
        let path = path.into_os_string().into_string();
        path.map_err(|_| "the folder's path is no text".to_owned())?
    } else {
        source.to_owned()
    };
    let mount = VolumeMount::new(source, target);
    match mode {
        None | Some("rw") => Ok(mount),
        Some("ro") => Ok(mount.read_only()),
        Some(_) => Err("after DEST comes `ro`, or nothing".into()),
    }
}

/// `off`, `public`, or the rules of a file.
pub(crate) fn policy(text: &str) -> Result<NetworkPolicy, String> {
    /// A policy of the most rules that there may be, each with the longest name.
    const LONGEST: u64 = 512 * 1024;
    let text = match text {
        "off" | "public" => text.to_owned(),
        file => {
            let mut text = String::new();
            let file = File::open(file)
                .map_err(|error| format!("{error}; write off, public, or a file of rules"))?;
            let read = file.take(LONGEST + 1).read_to_string(&mut text);
            match read.map_err(|error| error.to_string())? as u64 {
                0..=LONGEST => text,
                _ => return Err("the file is too long".into()),
            }
        }
    };
    text.parse().map_err(told)
}

/// Where to a rule allows connections.
pub(crate) fn allow(text: &str) -> Result<NetworkRule, String> {
    NetworkRule::parse(NetworkAction::Allow, text).map_err(told)
}

/// Where to a rule denies connections.
pub(crate) fn deny(text: &str) -> Result<NetworkRule, String> {
    NetworkRule::parse(NetworkAction::Deny, text).map_err(told)
}

/// A network that is opened beneath all policies, and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
    pub(crate) port: Option<u16>,
}

/// `NETWORK[:PORT]`.
pub(crate) fn opening(text: &str) -> Result<Opening, String> {
    let rule = allow(text)?;
    match rule.destination {
        Destination::Cidr { address, prefix } => Ok(Opening {
            address,
            prefix,
            port: rule.port,
        }),
        _ => Err("write an address or a network, as in 192.168.1.20:8080 or 10.1.0.0/16".into()),
    }
}

/// `ADDRESS[:PORT]`.
pub(crate) fn nameserver(text: &str) -> Result<SocketAddr, String> {
    const DNS: u16 = 53;
    let address = text
        .parse::<IpAddr>()
        .map(|address| SocketAddr::new(address, DNS));
    let address = address.or_else(|_| text.parse());
    address.map_err(|_| "write an address, as in 192.168.1.1 or [2001:db8::53]:53".into())
}

fn told(error: sandbox::Error) -> String {
    match error.context("found") {
        Some(found) => format!("{}, found `{found}`", error.message()),
        None => error.message().to_owned(),
    }
}

/// `KEY=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".into()),
    }
}

/// A name of a sandbox: something that can be typed, and told from an option and from `ID:PATH`.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let starts = text
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric());
    if starts && text.len() <= 63 && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err(
            "use 1 to 63 letters, digits, `-`, `_` and `.`, beginning with a letter or digit"
                .into(),
        )
    }
}

/// The languages by all their names.
pub(crate) fn language() -> PossibleValuesParser {
    PossibleValuesParser::new(
        language::ALL
            .iter()
            .map(|language| PossibleValue::new(language.name).aliases(language.aliases)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_seconds_or_carry_units() {
        let seconds = |text| duration(text).unwrap().as_secs_f64();
        assert_eq!(seconds("90"), 90.0);
        assert_eq!(seconds("0.5"), 0.5);
        assert_eq!(seconds("2m"), 120.0);
        assert_eq!(seconds("1h30m"), 5400.0);
        assert_eq!(seconds(" 1h 30m "), 5400.0);
        assert_eq!(seconds("250ms"), 0.25);
    }

    #[test]
    fn times_that_make_no_sense_are_refused() {
        for text in [
            "",
            " ",
            "0",
            "-1",
            "nan",
            "inf",
            "1e300",
            "2x",
            "m",
            "1h30",
            "9999999999y",
            "0s",
            "-5m",
            "1ns",
        ] {
            assert!(duration(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("2g"), Ok(2 << 30));
        assert_eq!(size("1.5GiB"), Ok(3 << 29));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("1 T"), Ok(1 << 40));
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        for text in [
            "", "M", "-1M", "0", "1X", "1.2.3M", "1e3", "99999T", "0.1", "M512", "１M",
        ] {
            assert!(size(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn processors_are_a_positive_number() {
        assert_eq!(cpus("0.5"), Ok(0.5));
        for text in ["0", "-1", "nan", "inf", "", "two"] {
            assert!(cpus(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn a_variable_carries_its_value_or_takes_the_one_here() {
        let here = |name: &str| (name == "HERE").then(|| "yes".into());
        let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(variable_of("A=1=2", here), pair("A", "1=2"));
        assert_eq!(variable_of("A=", here), pair("A", ""));
        assert_eq!(variable_of("HERE", here), pair("HERE", "yes"));
        assert!(
            variable_of("GONE", here)
                .unwrap_err()
                .contains("GONE=VALUE")
        );
        assert!(variable_of("=1", here).is_err());
        assert!(variable_of("", here).is_err());
        assert!(variable_of("A=\0", here).is_err());
    }

    #[test]
    fn names_can_be_typed() {
        for text in ["a", "build-2.x", "3f"] {
            assert!(name(text).is_ok());
        }
        for text in ["", "-a", "a b", "a:b", "a/b", "é", ".", &"a".repeat(64)] {
            assert!(name(text).is_err(), "{text:?} was taken");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in any::<String>()) {
            let _ = (duration(&text), size(&text), cpus(&text), pair(&text), name(&text));
            let _ = variable_of(&text, |_| None);
        }

        #[test]
        fn a_time_reads_back_as_it_is_written(milliseconds in 1_u64..10_000_000_000) {
            let time = Duration::from_millis(milliseconds);
            let text = humantime::format_duration(time).to_string();
            prop_assert_eq!(duration(&text), Ok(time));
            prop_assert_eq!(duration(&text.replace(' ', "")), Ok(time));
        }

        #[test]
        fn whole_sizes_are_exact(number in 1_u64..8192, unit in 0_usize..5) {
            let text = format!("{number}{}", ["", "K", "M", "G", "T"][unit]);
            prop_assert_eq!(size(&text), Ok(number << (10 * unit)));
        }

        #[test]
        fn variables_split_at_the_first_equals_sign(name in "[A-Za-z_][A-Za-z0-9_]{0,9}", value in "[^\0]{0,20}") {
            prop_assert_eq!(variable_of(&format!("{name}={value}"), |_| None), Ok((name, value)));
        }
    }
}
