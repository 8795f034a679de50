"""Leaves that every room may use, with nothing of the domain in them: no room is known.

`checks` checks arguments and `paths` those that are paths; `arguments` recalls those of
a call and knows which name is meant. `files` replaces files as a whole, and `scratch`
makes folders that go with their process. `journal` says whose records a folder has, and
`telling` warns and goes on. `tables` sets text and HTML, `axes` what is drawn. `lazy`
loads a package's names when they are used.
"""
