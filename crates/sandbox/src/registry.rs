//! Providers by name, for programs that are told at run time which one to use. There is no global registry.

use sandbox_core::{Error, ErrorKind, Result, SandboxProvider};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Opens a provider with the configuration of its environment.
pub type Open = dyn Fn() -> Result<Arc<dyn SandboxProvider>> + Send + Sync;

/// Providers that exist, with the feature that compiles each of them in.
const KNOWN: &[(&str, &str)] = &[("local", "local")];

/// Providers by name.
///
/// ```
/// use sandbox::Registry;
///
/// let registry = Registry::compiled_in();
/// let error = registry.open("moon").unwrap_err();
/// assert!(error.message().starts_with("there is no provider `moon`"));
/// ```
#[derive(Clone, Default)]
pub struct Registry {
    providers: BTreeMap<String, Arc<Open>>,
}

impl Registry {
    /// Knows no provider.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Knows the providers whose features are compiled in. Opens none of them.
    #[must_use]
    pub fn compiled_in() -> Self {
        let registry = Self::new();
        #[cfg(feature = "local")]
        let registry = registry.register("local", || {
            Ok(Arc::new(sandbox_local::LocalProvider::new()?))
        });
        registry
    }

    /// Adds a provider, or replaces the one of this name.
    #[must_use]
    pub fn register(
        mut self,
        name: impl Into<String>,
        open: impl Fn() -> Result<Arc<dyn SandboxProvider>> + Send + Sync + 'static,
    ) -> Self {
        self.providers.insert(name.into(), Arc::new(open));
        self
    }

    /// The names it knows, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.providers.keys().map(String::as_str)
    }

    /// Opens the provider of this name.
    ///
    /// # Errors
    /// `Unsupported`, with the feature to enable, if it is not compiled in; `InvalidArgument` if there is none of
    /// this name; whatever opening it fails with.
    pub fn open(&self, name: &str) -> Result<Arc<dyn SandboxProvider>> {
        match self.providers.get(name) {
            Some(open) => open(),
            None => Err(self.missing(name)),
        }
    }

    fn missing(&self, name: &str) -> Error {
        if let Some((_, feature)) = KNOWN.iter().find(|(known, _)| *known == name) {
            let message = format!(
                "provider `{name}` is not compiled in, enable the feature `{feature}` of the crate `sandbox`"
            );
            return Error::new(ErrorKind::Unsupported, message);
        }
        let names: Vec<_> = self.names().collect();
        let choice = if names.is_empty() {
            "none is compiled in".to_owned()
        } else {
            format!("choose one of: {}", names.join(", "))
        };
        Error::invalid(format!("there is no provider `{name}`, {choice}"))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.providers.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_provider_that_is_not_compiled_in_names_its_feature() {
        let error = Registry::new().open("local").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("enable the feature `local`"));
    }

    #[test]
    fn an_unknown_provider_lists_the_choice() {
        let open = || Err(Error::new(ErrorKind::Unavailable, "closed"));
        let registry = Registry::new().register("a", open).register("b", open);
        let error = registry.open("c").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(
            error.message(),
            "there is no provider `c`, choose one of: a, b"
        );
    }

    #[test]
    fn a_registered_provider_is_opened_when_asked_for() {
        let registry =
            Registry::new().register("a", || Err(Error::new(ErrorKind::Unavailable, "closed")));
        assert_eq!(registry.names().collect::<Vec<_>>(), ["a"]);
        assert_eq!(
            registry.open("a").unwrap_err().kind(),
            ErrorKind::Unavailable
        );
    }

    #[test]
    fn features_decide_what_is_compiled_in() {
        let names: Vec<_> = Registry::compiled_in().names().map(str::to_owned).collect();
        assert_eq!(names.contains(&"local".to_owned()), cfg!(feature = "local"));
    }
}
