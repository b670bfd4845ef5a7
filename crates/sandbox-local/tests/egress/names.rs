//! Names: what they lead to, and which are allowed.

use crate::world::{Inside, seen_by_host, seen_by_world};
use sandbox_core::NetworkEventKind;

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn no_name_leads_to_what_is_closed() {
    let inside = Inside::new("public").await;
    for name in [
        "to-169-254-169-254.example",
        "to-127-0-0-1.example",
        "to-10-0-0-1.example",
        "to-198-51-100-1.example",
        "private.example",
        "alias-private.example",
        "six-fd00--1.example",
        "six---ffff-a00-1.example",
        "six-64-ff9b--a9fe-a9fe.example",
    ] {
        let said = inside.python(&format!("print(get('{name}'))")).await;
        assert_eq!(said, "no name", "{name}");
        let why = inside
            .until_told(name, |event| event.name.as_deref() == Some(name))
            .await;
        assert_eq!(why.kind, NetworkEventKind::NameDenied);
        assert!(why.reason.contains("no policy opens"), "{why:?}");
    }
    let said = inside
        .python("print(get('a.example'), get('alias-a.example'))")
        .await;
    assert!(said.starts_with("hello a.example at "), "{said}");
    assert!(said.contains("hello alias-a.example at "), "{said}");
    assert_eq!(seen_by_host(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn a_name_that_changes_what_it_leads_to_leads_nowhere() {
    let inside = Inside::new("public").await;
    for (number, bad) in ["169-254-169-254", "127-0-0-1", "10-0-0-1"]
        .iter()
        .enumerate()
    {
        // The world counts who asks for it, and no other test does.
        let name = format!("rebind-{number}-{bad}.example");
        let said = inside
            .python(&format!("print(get('{name}'))\nprint(get('{name}'))"))
            .await;
        let (first, second) = said.split_once('\n').unwrap();
        assert_eq!(first, format!("hello {name} at 203.0.113.10"));
        assert_eq!(second, "no name");
    }
    let seen = seen_by_world();
    let bad = |line: &&String| line.starts_with("169.254.") && line.ends_with(" 80");
    assert_eq!(seen.iter().find(bad), None);
}

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn a_redirect_leads_nowhere_that_is_closed() {
    let inside = Inside::new("public").await;
    let said = inside
        .sh("curl -sL -m 20 -w '%{errormsg}' 'http://a.example/redirect?http://169.254.169.254/'")
        .await;
    assert!(!said.is_empty() && !said.contains("hello"), "{said}");
    let denied = inside.until_told("the redirect", |event| {
        event.kind == NetworkEventKind::Denied
    });
    assert!(denied.await.reason.contains("metadata"));
}

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn a_list_of_names_allows_these_and_nothing_else() {
    let inside = Inside::new("allow a.example:80\nallow a.example:443\nallow *.wild.example").await;
    let code = r#"
print(1, get("a.example"))
print(2, get("b.example"))
print(3, get("a.example", "b.example"))
print(4, get("a.example", "same.example"))
print(5, get("a.example", port=8080))
print(6, get("203.0.113.10"))
print(7, get("203.0.113.10", "a.example"))
print(8, get("203.0.113.11", "a.example"))
print(9, get("b.wild.example"))
print(10, get("c.b.wild.example"))
print(11, get("wild.example"))
print(12, talk("a.example", 443, hello("a.example")))
print(13, talk("a.example", 443, hello("b.example")))
print(14, talk("a.example", 443, hello(None)))
print(15, get("203.0.113.11", "b.wild.example"))
with connected("a.example", 80) as s:
    s.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
    print(16, one(s))
    s.sendall(b"GET /smuggled HTTP/1.1\r\nHost: b.example\r\n\r\n")
    print(17, tried(lambda: one(s)))
print(18, get("a.example", "b.example:80", "http://b.example/proxied"))
print(19, tried(lambda: get("A.Example.", "A.EXAMPLE")))
print(20, get("2001:db8::10", "a.example"))
print(21, get("2001:db8::11", "a.example"))
print(22, get("2001:db8::10", "b.example"))
print(23, get("::ffff:203.0.113.10", "a.example"))
"#;
    let said = inside.python(code).await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 23, "{said}");
    for (line, number) in lines.iter().zip(1..) {
        let expected = match number {
            1 | 16 => format!("{number} hello a.example at"),
            19 => format!("{number} hello A.EXAMPLE at"),
            9 => "9 hello b.wild.example at".to_owned(),
            10 => "10 hello c.b.wild.example at".to_owned(),
            12 => "12 reached ".to_owned(),
            2 | 11 => format!("{number} no name"),
            // An address that our resolver gave for an allowed name, by which the connection is asked for.
            7 | 20 | 23 => format!("{number} hello a.example at"),
            _ => format!("{number} "),
        };
        assert!(line.starts_with(&expected), "{number}: {said}");
        let is_refused = line.ends_with("ECONNRESET")
            || line.ends_with("ECONNREFUSED")
            || line.ends_with("nothing");
        let is_expected = matches!(number, 1 | 2 | 7 | 9 | 10 | 11 | 12 | 16 | 19 | 20 | 23);
        assert_eq!(is_refused, !is_expected, "{number}: {said}");
    }
    let seen = seen_by_world();
    for never in ["GET b.example /smuggled", "GET b.example:80 /proxied"] {
        assert!(!seen.iter().any(|line| line == never), "{never}");
    }
}
