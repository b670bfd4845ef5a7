//! Forwards the calls to a process's controls.

use crate::{Arguments, Around, Call, Kind};
use async_trait::async_trait;
use sandbox_core::{Bytes, Process, ProcessControl, ProcessId, PtySize, Result, SandboxId, Signal};
use std::sync::Arc;

/// Controls with something around their calls.
#[derive(Debug)]
struct WrappedControl<A> {
    inner: Arc<dyn ProcessControl>,
    sandbox: SandboxId,
    process: ProcessId,
    around: A,
}

/// The same process with `around` around its controls.
pub(crate) fn wrap_process<A: Around>(
    process: Process,
    sandbox: &SandboxId,
    around: &A,
) -> Process {
    let (sandbox, id, around) = (sandbox.clone(), process.id().clone(), around.clone());
    let wrap = |inner| {
        Arc::new(WrappedControl {
            inner,
            sandbox,
            process: id,
            around,
        }) as Arc<dyn ProcessControl>
    };
    process.map(|events| events, wrap)
}

impl<A: Around> WrappedControl<A> {
    async fn forward<F: Future<Output = Result<()>> + Send>(
        &self,
        kind: Kind,
        operation: &'static str,
        arguments: Arguments<'_>,
        run: impl FnMut() -> F + Send,
    ) -> Result<()> {
        let call = Call::of(kind, operation, &self.sandbox).process(&self.process);
        self.around.call(call.with(arguments), run).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> ProcessControl for WrappedControl<A> {
    async fn write_stdin(&self, data: Bytes) -> Result<()> {
        let arguments = Arguments::Stdin(data.len());
        let run = || self.inner.write_stdin(data.clone());
        self.forward(Kind::Stdin, "process.write_stdin", arguments, run)
            .await
    }

    async fn close_stdin(&self) -> Result<()> {
        let run = || self.inner.close_stdin();
        self.forward(Kind::Control, "process.close_stdin", Arguments::None, run)
            .await
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        let run = || self.inner.signal(signal);
        let arguments = Arguments::Signal(signal);
        self.forward(Kind::Control, "process.signal", arguments, run)
            .await
    }

    async fn resize(&self, size: PtySize) -> Result<()> {
        let run = || self.inner.resize(size);
        let arguments = Arguments::Resize(size);
        self.forward(Kind::Control, "process.resize", arguments, run)
            .await
    }
}
