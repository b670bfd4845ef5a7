//! What a layer does around calls, apart from the forwarding that all layers share.

use crate::{Call, provider::WrappedProvider, sandbox::WrappedSandbox};
use sandbox_core::{Body, BoxStream, FileContents, Process, Result, Sandbox, SandboxProvider};
use std::{fmt, sync::Arc};

/// What happens around each call of the contract.
///
/// The futures given to it do the call when they are polled: one that is never polled has no effect, and one that is
/// dropped is cancelled. Calls that answer without waiting (`id`, `name`, `capabilities`, `enforcement`, a handle by id)
/// are forwarded as they are.
pub trait Around: Clone + fmt::Debug + Send + Sync + 'static {
    /// Goes around a call with one result.
    fn call<T: Send>(
        &self,
        call: Call<'_>,
        run: impl Future<Output = Result<T>> + Send,
    ) -> impl Future<Output = Result<T>> + Send;

    /// Goes around a call whose results come one by one.
    fn stream<T: Send + 'static>(
        &self,
        call: Call<'_>,
        results: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>>;

    /// Goes around the start of a process, and around its events where that matters.
    fn spawn(
        &self,
        call: Call<'_>,
        run: impl Future<Output = Result<Process>> + Send,
    ) -> impl Future<Output = Result<Process>> + Send {
        self.call(call, run)
    }

    /// Goes around the opening of a file, and around its contents where that matters.
    fn read(
        &self,
        call: Call<'_>,
        run: impl Future<Output = Result<FileContents>> + Send,
    ) -> impl Future<Output = Result<FileContents>> + Send {
        self.call(call, run)
    }

    /// Goes around the writing of a file, and around its contents where that matters.
    fn write<F: Future<Output = Result<()>> + Send>(
        &self,
        call: Call<'_>,
        body: Body,
        run: impl FnOnce(Body) -> F + Send,
    ) -> impl Future<Output = Result<()>> + Send {
        self.call(call, run(body))
    }
}

/// A provider with `around` around its own calls. What it yields is not wrapped; see
/// [`LayeredProvider`](sandbox_core::LayeredProvider).
pub fn around_provider(
    inner: Arc<dyn SandboxProvider>,
    around: impl Around,
) -> Arc<dyn SandboxProvider> {
    Arc::new(WrappedProvider { inner, around })
}

/// A sandbox with `around` around all its calls, those of its capabilities and of its processes.
pub fn around_sandbox(inner: Arc<dyn Sandbox>, around: impl Around) -> Arc<dyn Sandbox> {
    Arc::new(WrappedSandbox { inner, around })
}
