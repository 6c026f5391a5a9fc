"""The command line, one module a group of commands: arguments in, library calls, tables out.

What changes the whole process, such as signal handlers, belongs here too.
"""
