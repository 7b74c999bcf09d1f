//! The attribute macro of `cascade-sdk`. Use it as [`cascade_sdk::activity`].
//!
//! [`cascade_sdk::activity`]: https://docs.rs/cascade-sdk

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{FnArg, ItemFn, ReturnType, parse_macro_input};

/// Makes a function the activity that this crate exports.
///
/// The function takes `(Context, Input)`, `(&Context, Input)` or `(Input)`, where
/// `Input` deserializes, and returns `Result<Output, E>`, where `Output`
/// serializes and `E` is `cascade_sdk::Error` or any error type. It stays an
/// ordinary function: tests call it, or run it in
/// `cascade_sdk::testing::Harness`.
///
/// A crate has one activity, and is a `cdylib`.
///
/// # Examples
///
/// ```
/// #[derive(serde::Deserialize)]
/// struct Order { quantity: u32, price_cents: u32 }
///
/// #[derive(serde::Serialize)]
/// struct Total { total_cents: u32 }
///
/// #[cascade_sdk::activity]
/// fn handle(order: Order) -> Result<Total, cascade_sdk::Error> {
///     let total_cents = order.quantity.checked_mul(order.price_cents)
///         .ok_or_else(|| cascade_sdk::Error::new("AmountTooLarge", "more than fits"))?;
///     Ok(Total { total_cents })
/// }
/// ```
///
/// What cannot be an activity does not compile:
///
/// ```compile_fail
/// #[cascade_sdk::activity]
/// async fn handle(input: String) -> Result<String, cascade_sdk::Error> { Ok(input) }
/// ```
///
/// ```compile_fail
/// #[cascade_sdk::activity]
/// fn handle(input: String) -> String { input }
/// ```
#[proc_macro_attribute]
pub fn activity(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = Tokens::from(arguments);
    let function = parse_macro_input!(item as ItemFn);
    match check(&arguments, &function) {
        Ok(()) => expand(&function).into(),
        Err(error) => {
            // The function itself is kept, so that its other users do not
            // report errors of their own.
            let error = error.to_compile_error();
            quote! { #function #error }.into()
        }
    }
}

/// Refuses what could not be called by the host, all problems at once.
fn check(arguments: &Tokens, function: &ItemFn) -> Result<(), syn::Error> {
    let signature = &function.sig;
    let mut problems = Vec::new();
    if !arguments.is_empty() {
        problems.push((arguments.span(), "`activity` takes no arguments"));
    }
    if let Some(keyword) = &signature.asyncness {
        problems.push((
            keyword.span(),
            "an activity is synchronous: calls of the host return when they are done",
        ));
    }
    if !signature.generics.params.is_empty() {
        problems.push((
            signature.generics.span(),
            "an activity has no generic parameters: its input has one type",
        ));
    }
    if !matches!(signature.inputs.len(), 1 | 2) {
        problems.push((
            signature.ident.span(),
            "an activity takes `(Context, Input)` or `(Input)`",
        ));
    }
    for input in &signature.inputs {
        if let FnArg::Receiver(receiver) = input {
            problems.push((
                receiver.span(),
                "an activity is a free function, not a method",
            ));
        }
    }
    if matches!(signature.output, ReturnType::Default) {
        problems.push((
            signature.ident.span(),
            "an activity returns `Result<Output, Error>`",
        ));
    }
    problems
        .into_iter()
        .map(|(span, message)| syn::Error::new(span, message))
        .reduce(|mut all, error| {
            all.combine(error);
            all
        })
        .map_or(Ok(()), Err)
}

/// The function, and on Wasm the export that calls it.
fn expand(function: &ItemFn) -> Tokens {
    let name = &function.sig.ident;
    // Spanned at the function, so that an input that does not deserialize, or an
    // output that does not serialize, is reported there.
    let call = quote_spanned! { name.span() =>
        ::cascade_sdk::__private::serve(#name, context, &input)
    };
    let handles = quote_spanned! { name.span() =>
        ::cascade_sdk::__private::assert_activity(#name)
    };
    // The host fixes the signature, so lints about it are of no use to the author. Not
    // `expect`: whether they would fire depends on the body.
    quote! {
        #[allow(clippy::needless_pass_by_value, clippy::unnecessary_wraps)]
        #function

        const _: fn() = || #handles;

        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Activity;

            impl ::cascade_sdk::__private::bindings::Guest for Activity {
                fn handle(
                    context: ::cascade_sdk::__private::bindings::Context,
                    input: ::std::string::String,
                ) -> ::std::result::Result<
                    ::std::string::String,
                    ::cascade_sdk::__private::bindings::ActivityError,
                > {
                    #call
                }
            }

            ::cascade_sdk::__private::bindings::export!(
                Activity with_types_in ::cascade_sdk::__private::bindings
            );
        };
    }
}
