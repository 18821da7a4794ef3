# No tables of its own: those of Notifier are in the schema notifier. Django sends pre_migrate only to applications that
# have this module.
