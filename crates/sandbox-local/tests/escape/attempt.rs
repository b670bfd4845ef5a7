//! One attempt, in a sandbox with all walls and in the places where it succeeds.

use crate::{
    lab::{Inside, Lab, Who, on_host},
    ordinary,
};
use std::future::Future;

/// A program that tries to get out, and what it is told.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    code: String,
    given: Vec<(&'static str, String)>,
    /// Where the public internet may be reached.
    networked: bool,
}

/// An attempt that runs `code`, the body of a Python function with `prelude.py` at hand.
pub(crate) fn attempt(code: impl Into<String>) -> Attempt {
    Attempt {
        code: code.into(),
        given: Vec::new(),
        networked: false,
    }
}

impl Attempt {
    /// Tells the program a value.
    pub(crate) fn given(mut self, name: &'static str, value: impl ToString) -> Self {
        self.given.push((name, value.to_string()));
        self
    }

    /// Is made where the public internet may be reached.
    pub(crate) fn with_network(self) -> Self {
        Self {
            networked: true,
            ..self
        }
    }

    /// Is made where nothing can be reached.
    pub(crate) fn without_network(self) -> Self {
        Self {
            networked: false,
            ..self
        }
    }

    /// Fails like this behind all walls, for `user` and for `root`.
    #[track_caller]
    pub(crate) fn fails(self, how: &str) -> Self {
        self.fails_as(Who::User, how).fails_as(Who::Root, how)
    }

    /// Fails like this behind all walls, which stand as well once the sandbox's file tree was replaced for a fork.
    #[track_caller]
    pub(crate) fn fails_as(self, who: Who, how: &str) -> Self {
        let this = self.ends_without(0, who, how);
        if !ordinary::is_ordinary() {
            let forked = wait_for(async {
                let lab = Lab::new();
                let sandbox = lab.rotate(this.sandbox(&lab).await).await;
                sandbox.python_given(who, &this.code, &this.given).await
            });
            assert_eq!(forked, how, "as {who:?} after a fork: {this:?}");
        }
        this
    }

    /// Still fails like this when these walls are gone: there is another behind them.
    #[track_caller]
    pub(crate) fn still_fails_without(self, walls: u32, who: Who, how: &str) -> Self {
        self.ends_without(walls, who, how)
    }

    /// The control: succeeds like this when these walls are gone.
    #[track_caller]
    pub(crate) fn works_without(self, walls: u32, who: Who, how: &str) -> Self {
        self.ends_without(walls, who, how)
    }

    /// The control, as far as this kernel has what is tried: if the host's root cannot do it, nobody can.
    #[track_caller]
    pub(crate) fn works_without_as_on_host(self, walls: u32, who: Who, how: &str) -> Self {
        if self.on_host() == how {
            return self.works_without(walls, who, how);
        }
        self
    }

    /// The control: succeeds like this for the host's root.
    #[track_caller]
    pub(crate) fn works_on_host(self, how: &str) -> Self {
        if ordinary::is_ordinary() {
            return self;
        }
        assert_eq!(self.on_host(), how, "on the host: {self:?}");
        self
    }

    /// The control where what can be had depends on the kernel: ends in another way when these walls are gone.
    #[track_caller]
    pub(crate) fn ends_otherwise_without(self, walls: u32, who: Who, how: &str) -> Self {
        if !Who::all().any(|one| one == who) {
            return self;
        }
        assert_ne!(
            self.end(walls, who),
            how,
            "as {who:?} without {walls:#x}: {self:?}"
        );
        self
    }

    /// How it ends for the host's root.
    pub(crate) fn on_host(&self) -> String {
        on_host(&self.code, &self.given)
    }

    #[track_caller]
    fn ends_without(self, walls: u32, who: Who, how: &str) -> Self {
        if !Who::all().any(|one| one == who) {
            return self;
        }
        assert_eq!(
            self.end(walls, who),
            how,
            "as {who:?} without {walls:#x}: {self:?}"
        );
        self
    }

    async fn sandbox(&self, lab: &Lab) -> Inside {
        if self.networked {
            lab.networked().await
        } else {
            lab.sandbox().await
        }
    }

    fn end(&self, walls: u32, who: Who) -> String {
        wait_for(async {
            let sandbox = self.sandbox(&Lab::without(walls)).await;
            sandbox.python_given(who, &self.code, &self.given).await
        })
    }
}

fn wait_for<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}
