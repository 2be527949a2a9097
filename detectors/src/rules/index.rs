//! Which rules may match an event: by product and operation, so that an event meets only those.

use std::borrow::Cow;
use std::collections::HashMap;

use exfilwatch_model::Product;

use super::pattern::{Pattern, with_lower};
use crate::contract::Interest;

/// Positions by product and operation.
#[derive(Debug, Default)]
pub(crate) struct Index {
    m365: Table,
    google_workspace: Table,
}

#[derive(Debug, Default)]
struct Table {
    exact: HashMap<String, Vec<usize>>,
    patterns: Vec<(Pattern, usize)>,
    all: Vec<usize>,
}

impl Index {
    /// An index over interests; positions are those of the iterator.
    pub(crate) fn new(interests: impl IntoIterator<Item = Interest>) -> Self {
        let mut index = Self::default();
        for (position, interest) in interests.into_iter().enumerate() {
            for product in [Product::M365, Product::GoogleWorkspace] {
                if interest.product.is_none_or(|only| only == product) {
                    index.table_mut(product).add(&interest.operations, position);
                }
            }
        }
        index
    }

    fn table_mut(&mut self, product: Product) -> &mut Table {
        match product {
            Product::M365 => &mut self.m365,
            Product::GoogleWorkspace => &mut self.google_workspace,
        }
    }

    fn table(&self, product: Product) -> &Table {
        match product {
            Product::M365 => &self.m365,
            Product::GoogleWorkspace => &self.google_workspace,
        }
    }

    /// Whether anything wants one of these operations. Called for every record.
    pub(crate) fn wants(&self, product: Product, operations: &[Cow<'_, str>]) -> bool {
        let table = self.table(product);
        !table.all.is_empty() || operations.iter().any(|operation| table.wants(operation))
    }

    /// Puts the positions that want this operation into `found`, in order, each once.
    pub(crate) fn find(&self, product: Product, operation: &str, found: &mut Vec<usize>) {
        let table = self.table(product);
        found.clear();
        found.extend_from_slice(&table.all);
        with_lower(operation, |lower| {
            if let Some(positions) = table.exact.get(lower) {
                found.extend_from_slice(positions);
            }
            let matching = table.patterns.iter().filter(|(p, _)| p.matches(lower));
            found.extend(matching.map(|(_, position)| *position));
        });
        found.sort_unstable();
        found.dedup();
    }
}

impl Table {
    fn add(&mut self, operations: &[String], position: usize) {
        if operations.is_empty() {
            self.all.push(position);
        }
        for operation in operations {
            let pattern = Pattern::new(operation);
            match pattern.exact() {
                Some(name) => self
                    .exact
                    .entry(name.to_owned())
                    .or_default()
                    .push(position),
                None => self.patterns.push((pattern, position)),
            }
        }
    }

    fn wants(&self, operation: &str) -> bool {
        with_lower(operation, |lower| {
            self.exact.contains_key(lower) || self.patterns.iter().any(|(p, _)| p.matches(lower))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interest(product: Option<Product>, operations: &[&str]) -> Interest {
        Interest {
            product,
            operations: operations.iter().map(|&o| o.to_owned()).collect(),
        }
    }

    #[test]
    fn an_event_meets_only_the_rules_that_may_match() {
        let index = Index::new([
            interest(Some(Product::M365), &["Set-Mailbox", "*Mailbox"]),
            interest(Some(Product::M365), &["*Export*"]),
            interest(None, &[]),
        ]);
        let mut found = Vec::new();
        for (product, operation, expected) in [
            (Product::M365, "set-mailbox", vec![0, 2]),
            (Product::M365, "SEARCHEXPORTED", vec![1, 2]),
            (Product::M365, "", vec![2]),
            (Product::GoogleWorkspace, "Set-Mailbox", vec![2]),
        ] {
            index.find(product, operation, &mut found);
            assert_eq!(found, expected, "{operation}");
        }
    }

    #[test]
    fn a_record_is_wanted_when_any_of_its_operations_is() {
        let index = Index::new([interest(
            Some(Product::GoogleWorkspace),
            &["change_user_access"],
        )]);
        let wants = |product, operations: &[&'static str]| {
            let operations: Vec<_> = operations.iter().map(|&o| Cow::Borrowed(o)).collect();
            index.wants(product, &operations)
        };
        assert!(wants(
            Product::GoogleWorkspace,
            &["edit", "Change_User_Access"]
        ));
        assert!(!wants(Product::GoogleWorkspace, &["edit"]));
        assert!(!wants(Product::M365, &["change_user_access"]));
        assert!(!wants(Product::GoogleWorkspace, &[]));
    }
}
