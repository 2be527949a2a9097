//! Which rules may match an event: by product and operation, so that an event meets only those.

use std::borrow::Cow;
use std::collections::HashMap;

use exfilwatch_model::Product;

use super::need::Need;
use crate::contract::Interest;
use exfilwatch_model::pattern::{Pattern, with_lower};

/// Positions by product and operation.
#[derive(Debug, Default)]
pub(crate) struct Index {
    m365: Table,
    google_workspace: Table,
}

#[derive(Debug, Default)]
struct Table {
    exact: HashMap<String, Named>,
    patterns: Vec<(Pattern, usize, Need)>,
    all: Vec<usize>,
}

/// Who wants an operation, and what one of them needs at least.
#[derive(Debug)]
struct Named {
    positions: Vec<usize>,
    need: Need,
}

impl Index {
    /// An index over what each wants; positions are those of the iterator.
    pub(crate) fn new(all: impl IntoIterator<Item = Vec<Interest>>) -> Self {
        let mut index = Self::default();
        for (position, interests) in all.into_iter().enumerate() {
            for interest in interests {
                for product in [Product::M365, Product::GoogleWorkspace] {
                    if interest.product.is_none_or(|only| only == product) {
                        index.table_mut(product).add(&interest, position);
                    }
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
        !table.all.is_empty() || operations.iter().any(|o| table.wants(o, &mut |_| true))
    }

    /// The same, less what its fields rule out: `may_have` is given an operation of the record and
    /// a field, and says whether an event of it may have the field.
    pub(crate) fn wants_fields(
        &self,
        product: Product,
        operations: &[Cow<'_, str>],
        may_have: &mut dyn FnMut(&str, &str) -> bool,
    ) -> bool {
        let table = self.table(product);
        let mut wanted = |operation: &str| table.wants(operation, &mut |f| may_have(operation, f));
        !table.all.is_empty() || operations.iter().any(|operation| wanted(operation))
    }

    /// Puts the positions that want this operation into `found`, in order, each once.
    pub(crate) fn find(&self, product: Product, operation: &str, found: &mut Vec<usize>) {
        let table = self.table(product);
        found.clear();
        found.extend_from_slice(&table.all);
        with_lower(operation, |lower| {
            if let Some(named) = table.exact.get(lower) {
                found.extend_from_slice(&named.positions);
            }
            let matching = table.patterns.iter().filter(|(p, ..)| p.matches(lower));
            found.extend(matching.map(|(_, position, _)| *position));
        });
        found.sort_unstable();
        found.dedup();
    }
}

impl Table {
    fn add(&mut self, interest: &Interest, position: usize) {
        if interest.operations.is_empty() {
            self.all.push(position);
        }
        for operation in &interest.operations {
            let pattern = Pattern::new(operation);
            let need = interest.need.clone();
            let Some(name) = pattern.exact() else {
                self.patterns.push((pattern, position, need));
                continue;
            };
            if let Some(named) = self.exact.get_mut(name) {
                named.positions.push(position);
                named.need = Need::any([named.need.clone(), need]);
            } else {
                let positions = vec![position];
                let named = Named { positions, need };
                self.exact.insert(name.to_owned(), named);
            }
        }
    }

    fn wants(&self, operation: &str, may_have: &mut dyn FnMut(&str) -> bool) -> bool {
        with_lower(operation, |lower| {
            let named = self.exact.get(lower);
            named.is_some_and(|named| named.need.may_be_met(may_have))
                || self
                    .patterns
                    .iter()
                    .any(|(p, _, need)| p.matches(lower) && need.may_be_met(may_have))
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
            need: Need::Nothing,
        }
    }

    #[test]
    fn an_event_meets_only_the_rules_that_may_match() {
        let index = Index::new([
            vec![interest(Some(Product::M365), &["Set-Mailbox", "*Mailbox"])],
            vec![interest(Some(Product::M365), &["*Export*"])],
            vec![interest(None, &[])],
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
        let index = Index::new([vec![
            interest(Some(Product::GoogleWorkspace), &["change_user_access"]),
            interest(Some(Product::M365), &["SharingSet"]),
        ]]);
        let wants = |product, operations: &[&'static str]| {
            let operations: Vec<_> = operations.iter().map(|&o| Cow::Borrowed(o)).collect();
            index.wants(product, &operations)
        };
        assert!(wants(
            Product::GoogleWorkspace,
            &["edit", "Change_User_Access"]
        ));
        assert!(!wants(Product::GoogleWorkspace, &["edit"]));
        assert!(wants(Product::M365, &["SharingSet"]));
        assert!(!wants(Product::M365, &["change_user_access"]));
        assert!(!wants(Product::GoogleWorkspace, &[]));
    }

    #[test]
    fn a_record_is_not_wanted_when_no_rule_can_find_the_fields_it_needs() {
        let needing = |operation: &str, name: &str| Interest {
            need: Need::Field(name.to_owned()),
            ..interest(Some(Product::M365), &[operation])
        };
        let mut interests = vec![needing("Set-Mailbox", "f"), needing("*Mailbox", "g")];
        let wants = |interests: &[Interest], field: &str| {
            let index = Index::new(interests.iter().cloned().map(|one| vec![one]));
            let operations = [Cow::Borrowed("Set-Mailbox")];
            index.wants_fields(Product::M365, &operations, &mut |operation, name| {
                operation == "Set-Mailbox" && name == field
            })
        };
        assert!(wants(&interests, "f"));
        assert!(wants(&interests, "g"));
        assert!(!wants(&interests, "h"));
        interests.push(interest(Some(Product::M365), &["set-mailbox"]));
        assert!(wants(&interests, "h"), "one rule needs nothing");
    }
}
