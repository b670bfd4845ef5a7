//! Refuses what the caller's own side does not allow, before anything happens.

mod config;
mod path;
mod rules;
#[cfg(test)]
mod tests;

pub use config::{
    Access, CreateRules, Effect, Excess, LimitRules, Network, PolicyConfig, PolicyRule,
};

use crate::{Around, Call, around_provider, around_sandbox};
use futures_util::{StreamExt, stream};
use rules::Rules;
use sandbox_core::{Body, BoxStream, CreateOptions, Layer, Result, Sandbox, SandboxProvider};
use std::sync::Arc;

/// Refuses calls that a policy denies, and sets what it asks for of new sandboxes. Made by [`PolicyConfig::build`].
///
/// # Behavior
/// - The first rule that fits a call decides, else the default. A call that touches several paths (`rename`, `symlink`) is
///   made only if each of them may be touched so.
/// - Paths are compared by their text, with `.`, `..` and double slashes resolved. What reaches a whole tree (a glob, a
///   listing of more than one level, a recursive removal, a rename, a link) is denied already where only a part of it is.
/// - New sandboxes are also held to [`PolicyConfig::create`]. What that sets then counts as asked for: a provider that cannot
///   enforce a ceiling refuses. `enforcement` tells what would hold of the options as they are then.
/// - What a policy denies is denied at the call; capabilities and accessors stay as they are.
///
/// # What a rule does not promise
/// - **Paths** are what the caller has named, not what is there. A symbolic link inside of the sandbox, made by a program of
///   it, leads wherever it leads; so does a `..` behind a link. A path rule keeps an honest caller, or an agent that
///   calls files by name, out of a place. It is no wall against code that runs in the sandbox.
/// - **Commands** are not looked into. Whatever may start a shell, an interpreter or `env` may do with it all that the
///   sandbox's user may, whatever paths and programs are denied. Only a list of allowed programs that run nothing else
///   is a bound, and only for what is started by this call.
/// - What a sandbox cannot do at all is the provider's business: users, mounts, network, limits.
///
/// # Errors
/// [`ErrorKind::PolicyDenied`](sandbox_core::ErrorKind::PolicyDenied), before anything has happened. The message and the
/// context `rule` name the rule: its name, `default`, or `create.` and the field.
///
/// # Order
/// Inside of audit, so that denials are recorded, and outside of all that waits or makes calls again.
///
/// # Cancel safety
/// That of the call itself.
#[derive(Debug, Clone)]
pub struct PolicyLayer {
    rules: Arc<Rules>,
}

impl PolicyLayer {
    fn of(rules: Rules) -> Self {
        Self {
            rules: Arc::new(rules),
        }
    }
}

impl Layer for PolicyLayer {
    fn sandbox(&self, inner: Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
        around_sandbox(inner, self.clone())
    }

    fn provider(&self, inner: Arc<dyn SandboxProvider>) -> Arc<dyn SandboxProvider> {
        around_provider(inner, self.clone())
    }
}

impl Around for PolicyLayer {
    async fn call<T: Send, F: Future<Output = Result<T>> + Send>(
        &self,
        call: Call<'_>,
        mut run: impl FnMut() -> F + Send,
    ) -> Result<T> {
        self.rules.check(call)?;
        run().await
    }

    fn stream<T: Send + 'static>(
        &self,
        call: Call<'_>,
        mut open: impl FnMut() -> BoxStream<'static, Result<T>> + Send + 'static,
    ) -> BoxStream<'static, Result<T>> {
        match self.rules.check(call) {
            Ok(()) => open(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn write<F: Future<Output = Result<()>> + Send>(
        &self,
        call: Call<'_>,
        body: Body,
        mut run: impl FnMut(Body) -> F + Send,
    ) -> Result<()> {
        self.rules.check(call)?;
        run(body).await
    }

    fn adjust(&self, options: CreateOptions) -> Result<CreateOptions> {
        self.rules.adjust(options)
    }
}
