//! Puts mutants behind switches: `a + b` becomes `if is(7) { a - b } else { a + b }`.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use anyhow::{Context, Result};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::visit_mut::{self, VisitMut};
use syn::{Block, Expr, ExprBinary, ExprMatch, Signature, Type, parse_quote};

use crate::{Genre, Mutant, Position};

/// The module that the switches are in, of the crate that is tested.
///
/// With `CASCADE_MUTANT_TRACE`, which mutants are reached is told instead, each once.
pub(crate) const SWITCH: &str = r#"
mod mutants {
    use std::io::Write;
    use std::sync::{LazyLock, Mutex};
    use std::{collections, env, fs};

    static ACTIVE: LazyLock<usize> = LazyLock::new(|| {
        let number = env::var("CASCADE_MUTANT").ok();
        number.map_or(usize::MAX, |number| number.parse().expect("a number"))
    });
    static IS_TRACED: LazyLock<bool> = LazyLock::new(|| env::var_os("CASCADE_MUTANT_TRACE").is_some());
    static REACHED: LazyLock<Mutex<(fs::File, collections::HashSet<usize>)>> = LazyLock::new(|| {
        let path = env::var_os("CASCADE_MUTANT_TRACE").expect("it is traced");
        let file = fs::OpenOptions::new().create(true).append(true).open(path);
        Mutex::new((file.expect("a file"), collections::HashSet::new()))
    });

    pub(crate) fn is(mutant: usize) -> bool {
        if *IS_TRACED {
            let mut reached = REACHED.lock().expect("nobody panics");
            if reached.1.insert(mutant) {
                writeln!(reached.0, "{mutant}").expect("a file");
            }
        }
        *ACTIVE == mutant
    }

    /// Of the two iterators that a function may return.
    pub(crate) enum Either<A, B> {
        A(A),
        B(B),
    }

    impl<T, A: Iterator<Item = T>, B: Iterator<Item = T>> Iterator for Either<A, B> {
        type Item = T;

        fn next(&mut self) -> Option<T> {
            match self {
                Self::A(all) => all.next(),
                Self::B(all) => all.next(),
            }
        }
    }
}
"#;

pub(crate) struct Instrumented {
    pub(crate) code: String,
    /// Those that have a switch now.
    pub(crate) placed: BTreeSet<usize>,
    /// Those that the grammar forbids.
    pub(crate) refused: BTreeSet<usize>,
}

/// Puts the mutants of a file behind switches.
pub(crate) fn instrument<'m>(
    code: &str,
    mutants: impl IntoIterator<Item = (usize, &'m Mutant)>,
) -> Result<Instrumented> {
    let mut wanted: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (id, mutant) in mutants {
        let key = (mutant.genre, mutant.span.start);
        wanted.entry(key).or_default().push((id, mutant));
    }
    let mut file = syn::parse_file(code).context("parsing what is to be tested")?;
    let mut placing = Placing {
        wanted,
        placed: BTreeSet::new(),
        refused: BTreeSet::new(),
        error: None,
    };
    placing.visit_file_mut(&mut file);
    if let Some(error) = placing.error {
        return Err(error.into());
    }
    Ok(Instrumented {
        code: prettyplease::unparse(&file),
        placed: placing.placed,
        refused: placing.refused,
    })
}

type Wanted<'m> = Vec<(usize, &'m Mutant)>;

struct Placing<'m> {
    wanted: BTreeMap<(Genre, Position), Wanted<'m>>,
    placed: BTreeSet<usize>,
    refused: BTreeSet<usize>,
    error: Option<syn::Error>,
}

impl<'m> Placing<'m> {
    fn take(&mut self, genre: Genre, span: proc_macro2::Span) -> Wanted<'m> {
        let key = (genre, span.start().into());
        self.wanted.remove(&key).unwrap_or_default()
    }

    /// `original`, or what a mutant makes of it.
    fn switch(
        &mut self,
        mutants: Wanted<'m>,
        original: Expr,
        mutate: impl Fn(&Mutant) -> syn::Result<Expr>,
    ) -> Expr {
        let mut all = original;
        for (id, mutant) in mutants {
            match mutate(mutant) {
                Ok(mutated) => {
                    self.placed.insert(id);
                    all = parse_quote!((if crate::mutants::is(#id) { #mutated } else { #all }));
                }
                Err(error) => self.error = Some(error),
            }
        }
        all
    }

    /// Those that give a function another body, to be asked for before that is changed.
    fn values(&mut self, block: &Block) -> Wanted<'m> {
        let first = block.stmts.first();
        first.map_or_else(Vec::new, |first| self.take(Genre::FnValue, first.span()))
    }

    fn function(&mut self, mutants: Wanted<'m>, signature: &Signature, block: &mut Block) {
        let is_impl = matches!(&signature.output, syn::ReturnType::Type(_, of) if matches!(**of, Type::ImplTrait(_)));
        for (id, mutant) in mutants {
            let value = match syn::parse_str::<Expr>(&mutant.replacement) {
                Ok(value) => value,
                Err(error) => {
                    self.error = Some(error);
                    continue;
                }
            };
            self.placed.insert(id);
            if is_impl {
                let original = mem::take(&mut block.stmts);
                block.stmts = parse_quote! {
                    if crate::mutants::is(#id) {
                        crate::mutants::Either::A(#value)
                    } else {
                        crate::mutants::Either::B({ #(#original)* })
                    }
                };
            } else {
                let early = parse_quote! { if crate::mutants::is(#id) { return #value; } };
                block.stmts.insert(0, early);
            }
        }
    }

    fn binary(&mut self, binary: &mut ExprBinary) -> Option<Expr> {
        let mutants = self.take(Genre::BinaryOperator, binary.op.span());
        visit_mut::visit_expr_binary_mut(self, binary);
        if mutants.is_empty() {
            return None;
        }
        // A `let` stands in a chain of `&&` only.
        if has_let(&binary.left) || has_let(&binary.right) {
            self.refused.extend(mutants.into_iter().map(|(id, _)| id));
            return None;
        }
        let original = Expr::Binary(binary.clone());
        Some(self.switch(mutants, original, |mutant| {
            let mut binary = binary.clone();
            binary.op = syn::parse_str(&mutant.replacement)?;
            Ok(Expr::Binary(binary))
        }))
    }

    fn arms(&mut self, of: &mut ExprMatch) {
        let wanted: Vec<_> = of
            .arms
            .iter()
            .map(|arm| {
                let guard = arm.guard.as_ref().map(|(_, guard)| guard.span());
                let guards = guard.map(|span| self.take(Genre::MatchArmGuard, span));
                (
                    self.take(Genre::MatchArm, arm.span()),
                    guards.unwrap_or_default(),
                )
            })
            .collect();
        visit_mut::visit_expr_match_mut(self, of);
        for (arm, (deleted, guards)) in of.arms.iter_mut().zip(wanted) {
            if let Some((_, guard)) = &mut arm.guard
                && !has_let(guard)
            {
                **guard = self.switch(guards, (**guard).clone(), |mutant| {
                    syn::parse_str(&mutant.replacement)
                });
            }
            // Those that have a guard are not deleted: that is the guard's `false`.
            if let (None, [(id, _)]) = (&arm.guard, deleted.as_slice()) {
                self.placed.insert(*id);
                let guard = parse_quote!(!crate::mutants::is(#id));
                arm.guard = Some((parse_quote!(if), Box::new(guard)));
            }
        }
    }
}

impl VisitMut for Placing<'_> {
    fn visit_item_fn_mut(&mut self, item: &mut syn::ItemFn) {
        let mutants = self.values(&item.block);
        visit_mut::visit_item_fn_mut(self, item);
        self.function(mutants, &item.sig, &mut item.block);
    }

    fn visit_impl_item_fn_mut(&mut self, item: &mut syn::ImplItemFn) {
        let mutants = self.values(&item.block);
        visit_mut::visit_impl_item_fn_mut(self, item);
        self.function(mutants, &item.sig, &mut item.block);
    }

    /// Their values are made by the compiler.
    fn visit_item_const_mut(&mut self, _: &mut syn::ItemConst) {}
    fn visit_impl_item_const_mut(&mut self, _: &mut syn::ImplItemConst) {}
    fn visit_item_static_mut(&mut self, _: &mut syn::ItemStatic) {}

    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        match expr {
            Expr::Binary(binary) => {
                if let Some(switched) = self.binary(binary) {
                    *expr = switched;
                }
            }
            Expr::Unary(unary) => {
                let mutants = self.take(Genre::UnaryOperator, unary.op.span());
                visit_mut::visit_expr_unary_mut(self, unary);
                let bare = unary.expr.clone();
                *expr = self.switch(mutants, Expr::Unary(unary.clone()), |_| Ok((*bare).clone()));
            }
            Expr::Match(of) => self.arms(of),
            Expr::Struct(of) => {
                let fields: Vec<_> = of
                    .fields
                    .iter()
                    .map(|field| self.take(Genre::StructField, field.span()))
                    .collect();
                visit_mut::visit_expr_struct_mut(self, of);
                let Some(rest) = of.rest.clone() else { return };
                for (field, mutants) in of.fields.iter_mut().zip(fields) {
                    let member = field.member.clone();
                    // As if the field was not there.
                    field.expr = self.switch(mutants, field.expr.clone(), |_| {
                        Ok(parse_quote!((#rest).#member))
                    });
                    field.colon_token = Some(parse_quote!(:));
                }
            }
            _ => visit_mut::visit_expr_mut(self, expr),
        }
    }
}

fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        Expr::Paren(inner) => has_let(&inner.expr),
        _ => false,
    }
}

/// Where the code of each mutant is in what [`instrument`] made.
pub(crate) struct Branches(Vec<Branch>);

struct Branch {
    id: usize,
    start: Position,
    end: Position,
    /// Of the original beside it, too.
    whole_start: Position,
    whole_end: Position,
}

impl Branches {
    pub(crate) fn of(code: &str) -> Result<Self> {
        let mut branches = Self(Vec::new());
        branches.visit_file(&syn::parse_file(code)?);
        Ok(branches)
    }

    /// The innermost mutant that all of this stands in.
    pub(crate) fn around(&self, start: Position, end: Position) -> Option<usize> {
        let around = self
            .0
            .iter()
            .filter(|of| of.start <= start && end <= of.end);
        around.max_by_key(|of| of.start).map(|of| of.id)
    }

    /// All mutants that this stands in or beside.
    pub(crate) fn beside(&self, start: Position, end: Position) -> Option<Vec<usize>> {
        let beside = self
            .0
            .iter()
            .filter(|of| of.whole_start <= start && end <= of.whole_end);
        let beside: Vec<_> = beside.map(|of| of.id).collect();
        (!beside.is_empty()).then_some(beside)
    }
}

impl<'ast> Visit<'ast> for Branches {
    fn visit_expr_if(&mut self, of: &'ast syn::ExprIf) {
        if let Expr::Call(call) = &*of.cond
            && let Expr::Path(function) = &*call.func
            && function
                .path
                .segments
                .first()
                .is_some_and(|first| first.ident == "crate")
            && let Some(Expr::Lit(syn::ExprLit {
                lit: syn::Lit::Int(id),
                ..
            })) = call.args.first()
            && let Ok(id) = id.base10_parse()
        {
            let (branch, whole) = (of.then_branch.span(), of.span());
            self.0.push(Branch {
                id,
                start: branch.start().into(),
                end: branch.end().into(),
                whole_start: whole.start().into(),
                whole_end: whole.end().into(),
            });
        }
        visit::visit_expr_if(self, of);
    }
}
