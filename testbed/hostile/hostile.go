// Package hostile asks the real runtime, in its sandboxed worker, about models that
// were made to harm it: what the static check lets pass must not end it.
package hostile
