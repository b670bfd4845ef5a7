//! Templates: the prepared file trees that sandboxes start from.

use crate::{BoxStream, Result, TemplateId};

/// A template that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TemplateInfo {
    /// Its name; start from it with [`Source::Template`](crate::Source::Template).
    pub id: TemplateId,
    /// Other names of it, which serve as well.
    pub aliases: Vec<TemplateId>,
    /// What is in it, for people.
    pub description: Option<String>,
}

impl TemplateInfo {
    /// A template of which only the name is known.
    #[must_use]
    pub fn new(id: TemplateId) -> Self {
        Self {
            id,
            aliases: Vec::new(),
            description: None,
        }
    }
}

/// Tells which templates a provider offers.
pub trait Templates: Send + Sync {
    /// Those that there are, the provider's default first. Every name starts a sandbox, and no name comes twice.
    fn list(&self) -> BoxStream<'static, Result<TemplateInfo>>;
}
