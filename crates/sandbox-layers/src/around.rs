//! What a layer does around calls, apart from the forwarding that all layers share.

use crate::{Call, provider::WrappedProvider, sandbox::WrappedSandbox};
use sandbox_core::{
    Body, BoxStream, CreateOptions, FileContents, Process, Result, Sandbox, SandboxProvider,
};
use std::{fmt, sync::Arc};

/// What happens around each call of the contract.
///
/// Each `run` and `open` given to it makes the call anew, with the same arguments, whenever it is called; most layers
/// call it once. The call is done when the future is polled: one that is never polled has no effect, and one that is
/// dropped is cancelled. Calls that answer without waiting (`id`, `name`, `capabilities`, `enforcement`, a handle by id)
/// are forwarded as they are.
pub trait Around: Clone + fmt::Debug + Send + Sync + 'static {
    /// Goes around a call with one result.
    fn call<T: Send, F: Future<Output = Result<T>> + Send>(
        &self,
        call: Call<'_>,
        run: impl FnMut() -> F + Send,
    ) -> impl Future<Output = Result<T>> + Send;

    /// Goes around a call whose results come one by one.
    fn stream<T: Send + 'static>(
        &self,
        call: Call<'_>,
        open: impl FnMut() -> BoxStream<'static, Result<T>> + Send + 'static,
    ) -> BoxStream<'static, Result<T>>;

    /// Goes around what gives a sandbox: create and connect.
    fn open<F: Future<Output = Result<Arc<dyn Sandbox>>> + Send>(
        &self,
        call: Call<'_>,
        run: impl FnMut() -> F + Send,
    ) -> impl Future<Output = Result<Arc<dyn Sandbox>>> + Send {
        self.call(call, run)
    }

    /// Goes around the start of a process, and around its events where that matters.
    fn spawn<F: Future<Output = Result<Process>> + Send>(
        &self,
        call: Call<'_>,
        run: impl FnMut() -> F + Send,
    ) -> impl Future<Output = Result<Process>> + Send {
        self.call(call, run)
    }

    /// Goes around the opening of a file, and around its contents where that matters.
    fn read<F: Future<Output = Result<FileContents>> + Send>(
        &self,
        call: Call<'_>,
        run: impl FnMut() -> F + Send,
    ) -> impl Future<Output = Result<FileContents>> + Send {
        self.call(call, run)
    }

    /// Goes around the writing of a file, and around its contents where that matters. `run` can be called again only
    /// where the body is at hand.
    fn write<F: Future<Output = Result<()>> + Send>(
        &self,
        call: Call<'_>,
        body: Body,
        run: impl FnMut(Body) -> F + Send,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Changes what is asked for of a new sandbox, before the call and before its enforcement is told, or refuses it.
    ///
    /// # Errors
    /// Why it is refused: `create` fails with that.
    fn adjust(&self, options: CreateOptions) -> Result<CreateOptions> {
        Ok(options)
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
