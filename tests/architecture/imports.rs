//! Finds which file of a crate imports from which, by parsing its modules and resolving every path.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, UseTree, Visibility};

/// One file's use of a name that another file of the same library defines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// Paths relative to the crate's source folder.
    pub from: String,
    pub to: String,
    pub line: usize,
    /// The path as written, with `use` trees unrolled.
    pub path: String,
}

/// A module: a file, or a `mod` block within one.
#[derive(Default)]
struct Module {
    file: String,
    children: BTreeMap<String, usize>,
    parent: Option<usize>,
    /// Names of the items that the module defines itself.
    items: BTreeSet<String>,
    /// Names that it imports or re-exports, each with the path that it resolves to.
    aliases: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    /// Every path that its code mentions, with its line and spelling.
    paths: Vec<(Vec<String>, usize)>,
}

struct Crate {
    modules: Vec<Module>,
    /// The name under which the binary target uses the library.
    library: &'static str,
    roots: BTreeMap<&'static str, usize>,
}

/// Returns the imports between the files of a source folder that contains lib.rs and optionally
/// main.rs.
pub fn read_crate(folder: &Path) -> Vec<Import> {
    let mut all = Crate { modules: Vec::new(), library: "udass_raw", roots: BTreeMap::new() };
    for root in ["lib.rs", "main.rs"] {
        let path = folder.join(root);
        if path.is_file() {
            let index = all.read(folder, &path, None, folder.to_path_buf());
            all.roots.insert(root, index);
        }
    }
    let mut imports = BTreeSet::new();
    for (index, module) in all.modules.iter().enumerate() {
        for (path, line) in &module.paths {
            let Some(to) = all.resolve(index, path, 0) else { continue };
            if to != module.file {
                imports.insert(Import {
                    from: module.file.clone(),
                    to,
                    line: *line,
                    path: path.join("::"),
                });
            }
        }
    }
    imports.into_iter().collect()
}

impl Crate {
    /// Reads a file and the modules that it declares. `folder` contains its child modules.
    fn read(
        &mut self,
        source: &Path,
        path: &Path,
        parent: Option<usize>,
        folder: PathBuf,
    ) -> usize {
        let text = std::fs::read_to_string(path).unwrap();
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = path.strip_prefix(source).unwrap().to_str().unwrap().to_string();
        self.modules.push(Module { file, parent, ..Module::default() });
        let index = self.modules.len() - 1;
        self.fill(source, index, &parsed.items, &folder);
        index
    }

    fn fill(&mut self, source: &Path, index: usize, items: &[Item], folder: &Path) {
        for item in items {
            if is_test(attributes(item)) {
                continue;
            }
            match item {
                Item::Mod(module) => {
                    let name = module.ident.to_string();
                    let child = match &module.content {
                        Some((_, items)) => {
                            let file = self.modules[index].file.clone();
                            let parent = Some(index);
                            self.modules.push(Module { file, parent, ..Module::default() });
                            let child = self.modules.len() - 1;
                            self.fill(source, child, items, &folder.join(&name));
                            child
                        }
                        None => {
                            let flat = folder.join(format!("{name}.rs"));
                            let nested = folder.join(&name).join("mod.rs");
                            let file = if flat.is_file() { flat } else { nested };
                            self.read(source, &file, Some(index), folder.join(&name))
                        }
                    };
                    self.modules[index].children.insert(name, child);
                }
                Item::Use(item) => self.add_use(index, item),
                other => {
                    self.modules[index].items.extend(name_of(other));
                    let mut paths = Paths::default();
                    paths.visit_item(other);
                    self.modules[index].paths.extend(paths.0);
                }
            }
        }
    }

    fn add_use(&mut self, index: usize, item: &ItemUse) {
        let public = !matches!(item.vis, Visibility::Inherited);
        let line = item.span().start().line;
        let module = &mut self.modules[index];
        for (name, path) in unroll(&item.tree) {
            // A module that re-exports its children's names does not depend on them.
            if !public || matches!(path[0].as_str(), "crate" | "super") {
                module.paths.push((path.clone(), line));
            }
            match name {
                Some(name) => drop(module.aliases.insert(name, path)),
                None => module.globs.push(path),
            }
        }
    }

    fn root_of(&self, mut module: usize) -> usize {
        while let Some(parent) = self.modules[module].parent {
            module = parent;
        }
        module
    }

    /// Resolves a path to the file that defines the item, as far as the path stays within the
    /// library.
    fn resolve(&self, from: usize, path: &[String], depth: usize) -> Option<String> {
        if depth > 16 {
            return None;
        }
        let (mut module, mut rest) = (from, path);
        match path[0].as_str() {
            "crate" => (module, rest) = (self.root_of(from), &path[1..]),
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|part| part == "super") {
                    (module, rest) = (self.modules[module].parent?, &rest[1..]);
                }
            }
            name if name == self.library => {
                (module, rest) = (*self.roots.get("lib.rs")?, &path[1..]);
            }
            name if self.modules[module].children.contains_key(name) => {}
            // A name in scope: its import is already counted at the `use` itself.
            _ if depth == 0 => return None,
            _ => {}
        }
        while let Some((part, after)) = rest.split_first() {
            let here = &self.modules[module];
            if let Some(&child) = here.children.get(part) {
                (module, rest) = (child, after);
                continue;
            }
            if here.items.contains(part) {
                return Some(here.file.clone());
            }
            if let Some(alias) = here.aliases.get(part) {
                if alias.len() == 1 && alias[0] == *part {
                    return None;
                }
                let whole = [alias.as_slice(), after].concat();
                return self.resolve(module, &whole, depth + 1);
            }
            let through = here.globs.iter().find_map(|glob| {
                self.resolve(module, &[glob.as_slice(), rest].concat(), depth + 1)
            });
            // Items defined by a macro or a generated file count as defined by the file that
            // contains it.
            return match through {
                Some(file) => Some(file),
                None if depth == 0 && module != from => Some(here.file.clone()),
                None => None,
            };
        }
        // The path names a module: its file counts, unless that only declares and re-exports.
        let named = &self.modules[module];
        (!named.items.is_empty()).then(|| named.file.clone())
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(x) => &x.attrs,
        Item::Enum(x) => &x.attrs,
        Item::Fn(x) => &x.attrs,
        Item::Impl(x) => &x.attrs,
        Item::Mod(x) => &x.attrs,
        Item::Static(x) => &x.attrs,
        Item::Struct(x) => &x.attrs,
        Item::Trait(x) => &x.attrs,
        Item::Type(x) => &x.attrs,
        Item::Use(x) => &x.attrs,
        _ => &[],
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.meta.require_list();
        attribute.path().is_ident("cfg") && list.is_ok_and(|l| l.tokens.to_string() == "test")
    })
}

fn name_of(item: &Item) -> Option<String> {
    Some(match item {
        Item::Const(x) => x.ident.to_string(),
        Item::Enum(x) => x.ident.to_string(),
        Item::Fn(x) => x.sig.ident.to_string(),
        Item::Static(x) => x.ident.to_string(),
        Item::Struct(x) => x.ident.to_string(),
        Item::Trait(x) => x.ident.to_string(),
        Item::Type(x) => x.ident.to_string(),
        Item::Union(x) => x.ident.to_string(),
        _ => return None,
    })
}

/// Collects every path of more than one segment in an item, including those in macro arguments.
#[derive(Default)]
struct Paths(Vec<(Vec<String>, usize)>);

impl<'ast> Visit<'ast> for Paths {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 && path.leading_colon.is_none() {
            let parts = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.0.push((parts, path.span().start().line));
        }
        visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let line = item.span().start().line;
        self.0.extend(unroll(&item.tree).into_iter().map(|(_, path)| (path, line)));
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }
}

impl Paths {
    /// Collects the paths among the tokens of a macro's arguments.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut line, mut colons) = (0, 0);
        let mut end = |path: &mut Vec<String>, line: usize| {
            let whole = std::mem::take(path);
            if whole.len() > 1 {
                self.0.push((whole, line));
            }
        };
        let mut groups = Vec::new();
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        end(&mut path, line);
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    end(&mut path, line);
                    colons = 0;
                    groups.push(group.stream());
                }
                _ => {
                    end(&mut path, line);
                    colons = 0;
                }
            }
        }
        end(&mut path, line);
        groups.into_iter().for_each(|group| self.tokens(group));
    }
}

/// Returns the paths of a `use`, each with the name that it binds; `None` for a glob.
fn unroll(tree: &UseTree) -> Vec<(Option<String>, Vec<String>)> {
    fn walk(tree: &UseTree, prefix: &[String], found: &mut Vec<(Option<String>, Vec<String>)>) {
        let with = |ident: &syn::Ident| [prefix, &[ident.to_string()]].concat();
        match tree {
            UseTree::Path(part) => walk(&part.tree, &with(&part.ident), found),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| walk(tree, prefix, found));
            }
            UseTree::Name(name) if name.ident == "self" => {
                found.push((prefix.last().cloned(), prefix.to_vec()));
            }
            UseTree::Name(name) => found.push((Some(name.ident.to_string()), with(&name.ident))),
            UseTree::Rename(rename) => {
                found.push((Some(rename.rename.to_string()), with(&rename.ident)));
            }
            UseTree::Glob(_) => found.push((None, prefix.to_vec())),
        }
    }
    let mut found = Vec::new();
    walk(tree, &[], &mut found);
    found
}
