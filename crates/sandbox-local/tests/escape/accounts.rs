//! Account files that the sandbox has made a trap of.

use crate::lab::{Inside, Lab, Who, in_time};
use sandbox_core::{PermissionOptions, ReadOptions, prelude::*};

/// What `/etc/passwd` and `/etc/group` are turned into.
const TRAPS: [(&str, &str); 9] = [
    ("missing", "os.unlink(path)"),
    ("fifo", "os.unlink(path); os.mkfifo(path)"),
    ("directory", "os.unlink(path); os.mkdir(path)"),
    (
        "link to a device",
        "os.unlink(path); os.symlink('/dev/zero', path)",
    ),
    (
        "link to a terminal",
        "os.unlink(path); os.symlink('/dev/ptmx', path)",
    ),
    ("huge", "open(path, 'wb').write(b'x:' * (8 << 20))"),
    (
        "endless",
        "open(path, 'w').close(); os.truncate(path, 1 << 40)",
    ),
    ("not text", "open(path, 'wb').write(os.urandom(1 << 20))"),
    (
        "malformed",
        r"open(path, 'w').write('nobody:x:4294967296:-1::/:\nnobody:x:0x0:0::/:\nnobody::\n:::::::\nnobody:x:99999:99999::/:\n')",
    ),
];

#[tokio::test]
async fn that_are_no_account_files() {
    for (name, trap) in TRAPS {
        let sandbox = Lab::new().sandbox().await;
        let spring = format!(
            "\n        for path in ('/etc/passwd', '/etc/group'):\n            {trap}\n        return 'set'\n"
        );
        assert_eq!(sandbox.python(Who::Root, &spring).await, "set", "{name}");
        sandbox.works().await;
        for user in [
            "nobody",
            "nobody:nogroup",
            "user:nogroup",
            "no such user",
            "-1",
            "4294967295",
            "65536",
            "0:4294967295",
        ] {
            let refused = as_user(&sandbox, user).await;
            assert!(refused.is_err(), "{name}: {user} is {refused:?}");
        }
        // Numbers need no names.
        assert_eq!(as_user(&sandbox, "33").await.unwrap(), "33", "{name}");
    }
}

#[tokio::test]
async fn that_give_somebody_another_number() {
    let sandbox = Lab::new().sandbox().await;
    let lie = "printf 'user:x:0:0::/root:/bin/sh\\nroot:x:1000:1000::/:/bin/sh\\nme:x:0:0::/root:/bin/sh\\n' > /etc/passwd";
    assert_eq!(sandbox.sh(Who::Root, lie).await, "");
    sandbox.works().await;
    // Who they are does not depend on what the sandbox says of them.
    assert_eq!(as_user(&sandbox, "user").await.unwrap(), "1000");
    assert_eq!(as_user(&sandbox, "root").await.unwrap(), "0");
    // Whom only root of the sandbox could write there may be root of the sandbox.
    assert_eq!(as_user(&sandbox, "me").await.unwrap(), "0");
    sandbox.works().await;
}

#[tokio::test]
async fn that_make_a_plain_reader_wait() {
    // The control of those above.
    let sandbox = Lab::new().sandbox().await;
    let script = "rm /etc/passwd; mkfifo /etc/passwd; timeout 0.2 id nobody; echo $?";
    assert_eq!(sandbox.sh(Who::Root, script).await, "124");
}

/// The user that a command runs as, after asking the file calls too.
async fn as_user(sandbox: &Inside, user: &str) -> sandbox_core::Result<String> {
    let path = SandboxPath::new("/etc/hostname")?;
    let read = sandbox.files().read(&path, ReadOptions::new().user(user));
    let read = in_time(read).await;
    sandbox.sh(Who::Root, "touch owned").await;
    let options = PermissionOptions::new().user("root").owner(user);
    let given = SandboxPath::new("/root/owned")?;
    let owned = in_time(sandbox.files().set_permissions(&given, options)).await;
    let output = in_time(sandbox.exec(Command::new("id").arg("-u").user(user))).await?;
    // All three agree about who there is.
    read?;
    owned?;
    Ok(output.stdout_text().trim().to_owned())
}
