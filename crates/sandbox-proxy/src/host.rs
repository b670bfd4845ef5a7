//! The names by which sandboxes are asked for: `<port>-<sandbox>.localhost`.

use std::net::SocketAddr;

/// The domain that browsers take for this machine whatever a name server says.
pub(crate) const LOCALHOST: &str = "localhost";

/// Longest name of a host.
const MAX: usize = 255;

/// Which server is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) port: u16,
    /// Id or name, in lower case.
    pub(crate) sandbox: String,
}

/// Why a host names no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// It is none of ours: whoever made this name point here is none of our business.
    Foreign,
    /// It is ours, and names no port of a sandbox.
    Malformed,
}

/// The address at which a proxy that listens on `address` serves `port` of a sandbox, by its id or name.
///
/// Browsers and `curl` know that such a name is this machine. For other programs the resolver must know it.
#[must_use]
pub fn url(address: SocketAddr, port: u16, sandbox: &str) -> String {
    format!("http://{port}-{sandbox}.{LOCALHOST}:{}/", address.port())
}

impl Target {
    /// Reads a host, with or without a port of its own, which says nothing.
    pub(crate) fn parse(host: &str, domains: &[String]) -> Result<Self, Unknown> {
        let host = without_port(host).ok_or(Unknown::Foreign)?;
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if host.len() > MAX {
            return Err(Unknown::Foreign);
        }
        let below = |domain: &String| match host.strip_suffix(domain.as_str()) {
            Some("") => Some(""),
            rest => rest?.strip_suffix('.'),
        };
        let label = domains.iter().find_map(below).ok_or(Unknown::Foreign)?;
        Self::of_label(label).ok_or(Unknown::Malformed)
    }

    fn of_label(label: &str) -> Option<Self> {
        let (port, sandbox) = label.split_once('-')?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let edges = |byte: &u8| *byte != b'.';
        let bytes = sandbox.as_bytes();
        let named = bytes.iter().copied().all(fits)
            && bytes.first().is_some_and(edges)
            && bytes.last().is_some_and(edges);
        let canonical = !port.starts_with(['0', '+']);
        let port = port.parse().ok().filter(|_| canonical && named)?;
        let sandbox = sandbox.to_owned();
        Some(Self { port, sandbox })
    }
}

/// The name in `name:port`. Addresses are no names.
fn without_port(host: &str) -> Option<&str> {
    match host.split_once(':') {
        None => Some(host),
        Some((name, port)) => port
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then_some(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(host: &str) -> Result<(u16, String), Unknown> {
        let domains = [LOCALHOST.to_owned(), "boxes.test".to_owned()];
        Target::parse(host, &domains).map(|target| (target.port, target.sandbox))
    }

    #[test]
    fn a_port_and_a_sandbox_are_read() {
        for (host, port, sandbox) in [
            ("8000-s1.localhost", 8000, "s1"),
            ("8000-s1.localhost:80", 8000, "s1"),
            ("8000-S1.LOCALHOST.:80", 8000, "s1"),
            ("1-my-box.localhost:", 1, "my-box"),
            ("65535-a.b_c.localhost", 65535, "a.b_c"),
            ("80-x.boxes.test", 80, "x"),
        ] {
            assert_eq!(parse(host), Ok((port, sandbox.to_owned())), "{host}");
        }
    }

    #[test]
    fn foreign_names_are_told_from_bad_ones() {
        for host in [
            "",
            "example.com",
            "8000-s1.localhost.example.com",
            "8000-s1.notlocalhost",
            "127.0.0.1:80",
            "[::1]:80",
            "8000-s1.localhost:80:80",
            "8000-s1.localhost:x",
            &format!("1-{}.localhost", "a".repeat(300)),
        ] {
            assert_eq!(parse(host), Err(Unknown::Foreign), "{host}");
        }
        for host in [
            "localhost",
            "localhost:80",
            ".localhost",
            "8000.localhost",
            "s1.localhost",
            "0-s1.localhost",
            "08-s1.localhost",
            "+8-s1.localhost",
            "65536-s1.localhost",
            "8000-.localhost",
            "8000-..localhost",
            "8000-a/b.localhost",
            "8000-a b.localhost",
            "boxes.test",
        ] {
            assert_eq!(parse(host), Err(Unknown::Malformed), "{host}");
        }
    }

    #[test]
    fn an_address_is_what_is_read_again() {
        let address = "127.0.0.1:7000".parse().unwrap();
        let shown = url(address, 8000, "s1");
        assert_eq!(shown, "http://8000-s1.localhost:7000/");
        let host = &shown["http://".len()..shown.len() - 1];
        assert_eq!(parse(host), Ok((8000, "s1".to_owned())));
    }
}
