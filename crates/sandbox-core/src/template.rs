//! Templates: the prepared file trees that sandboxes start from.

use crate::{BoxStream, Result, TemplateId};
use async_trait::async_trait;

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

/// The templates that a provider offers.
#[async_trait]
pub trait Templates: Send + Sync {
    /// Those that there are, snapshots among them, the provider's default first. Every name starts a sandbox, and no name
    /// comes twice.
    fn list(&self) -> BoxStream<'static, Result<TemplateInfo>>;

    /// Removes a template or a snapshot, of one with several names that one; `false` if it was gone already. Nothing can be
    /// started from it by that name any more. Sandboxes that were are not touched: what they need of a snapshot goes with the
    /// last of them.
    ///
    /// # Errors
    /// `Unsupported` for one that belongs to the provider; `InvalidState` for one that cannot go before those who use it.
    async fn remove(&self, id: &TemplateId) -> Result<bool>;
}
