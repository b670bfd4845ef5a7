//! Programs that fetch things, unchanged, in the open and where only some names are allowed.

use crate::world::Inside;

/// Everything, and nothing but the host of the packages.
const POLICIES: [&str; 2] = ["public", "allow a.example:80"];

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn pip_installs() {
    for policy in POLICIES {
        let inside = Inside::new(policy).await;
        let script = "python3 -m venv v 2>&1 && v/bin/pip install -q --disable-pip-version-check --no-cache-dir \
             --index-url http://$INDEX/simple --trusted-host $INDEX --retries 0 worldly 2>&1 \
             && v/bin/python -c 'import worldly; print(worldly.word)'";
        let said = inside.sh(&format!("INDEX=a.example; {script}")).await;
        assert!(said.ends_with("installed"), "{policy}: {said}");
        if policy != "public" {
            let said = inside
                .sh(&format!("rm -r v; INDEX=b.example; {script}"))
                .await;
            assert!(!said.ends_with("installed"), "{said}");
        }
    }
}

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn git_clones() {
    for policy in POLICIES {
        let inside = Inside::new(policy).await;
        let said = inside
            .sh("git clone -q http://a.example/repository.git cloned 2>&1 && cat cloned/file")
            .await;
        assert_eq!(said, "from the world", "{policy}");
    }
}

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn curl_and_wget_fetch() {
    for policy in POLICIES {
        let inside = Inside::new(policy).await;
        let said = inside
            .sh("curl -sS http://a.example/ && curl -sS -6 http://a.example/")
            .await;
        assert_eq!(
            said, "hello a.example at 203.0.113.10\nhello a.example at 2001:db8::10",
            "{policy}"
        );
    }
}

#[tokio::test]
#[ignore = "run by `runs`, in a world of its own"]
async fn npm_installs_and_node_fetches() {
    for policy in POLICIES {
        let inside = Inside::new(policy).await;
        if inside.sh("command -v node npm | wc -l").await != "2" {
            eprintln!("left out: node and npm are not installed");
            return;
        }
        let fetch = "node -e 'fetch(\"http://a.example/\").then(answer => answer.text()).then(text => process.stdout.write(text))'";
        let said = inside.sh(fetch).await;
        assert!(said.starts_with("hello a.example at "), "{policy}: {said}");
        let install = "npm install --silent --no-audit --no-fund --fetch-retries=0 --registry=http://a.example/ worldly 2>&1 \
             && node -e 'console.log(require(\"worldly\"))'";
        let said = inside.sh(install).await;
        assert!(said.ends_with("installed"), "{policy}: {said}");
    }
}
