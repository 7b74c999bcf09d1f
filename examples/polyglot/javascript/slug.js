// urn:cascade:activity:slug_js: a title as it stands in a URL.
//
// An activity in JavaScript: the exported function of the WIT world. JSON text in, JSON text out.
import { write } from 'cascade:activity/log@0.1.0';

export function handle(context, input) {
  const { title } = JSON.parse(input);
  if (typeof title !== 'string') {
    // What is thrown is the contract's `activity-error`.
    throw { name: 'InvalidInput', message: 'input.title: expected a text', retryable: false, details: undefined };
  }
  const slug = title.toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '');
  write('info', `made ${slug}`);
  return JSON.stringify({ slug });
}
