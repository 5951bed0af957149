//! Which objects a command is about, said alike by every command that reads some.

use anyhow::bail;
use clap::Args;

use crate::client::{Client, Resource, kind_and_names};

#[derive(Debug, Args)]
pub struct Selection {
    /// A kind (`pods`, `deploy`, `boats.example.com`), or KIND/NAME
    pub kind: String,
    /// Names; all objects if none is given
    pub names: Vec<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only objects with these labels (`app=hello,tier!=front`)
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
}

impl Selection {
    /// With KIND/NAME taken apart. Error: names, and more namespaces than one.
    pub fn settled(mut self) -> anyhow::Result<Self> {
        (self.kind, self.names) = kind_and_names(self.kind, self.names);
        if self.all_namespaces && !self.names.is_empty() {
            bail!("objects are named in one namespace: leave out --all-namespaces, or the names");
        }
        Ok(self)
    }

    /// The client's namespace, unless all are meant.
    pub fn namespace<'a>(&self, client: &'a Client) -> Option<&'a str> {
        (!self.all_namespaces).then_some(client.namespace.as_str())
    }

    /// The paths to ask: the collection's, or one for each name.
    pub fn paths(&self, client: &Client, resource: &Resource) -> Vec<String> {
        resource.paths(self.namespace(client), &self.names, self.selector.as_deref())
    }
}
