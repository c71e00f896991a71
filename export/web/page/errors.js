/** Something that a person did or has and the page cannot use: its message is shown as it is. */
export class PageError extends Error {}
